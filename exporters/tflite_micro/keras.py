"""A Keras-2 (tf_keras) model as float ONNX, pruning and clustering wrappers stripped: a front end, not a backend.

    python -m edgedeploy.exporters.tflite_micro.keras MODEL.keras OUT.onnx

Keras is channels last and ONNX is not: the graph keeps the Keras input shape and begins with a Transpose, which the
writer turns into a change of layout, so no data moves on the device. tensorflow-model-optimization knows Keras 2 only.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.errors import InputError, MissingToolError, UnsupportedOpError

OPSET = 20
_TO_CHANNELS_FIRST, _TO_CHANNELS_LAST = [0, 3, 1, 2], [0, 2, 3, 1]
_ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "softmax": "Softmax"}


def load_keras(path: Path) -> Any:
    """Load a .keras or .h5 file with tf_keras and strip pruning and clustering.

    Raises:
        MissingToolError: the extra ``tensorflow`` is not installed.
        InputError: the file is not a Keras-2 model.
    """
    try:
        import tensorflow_model_optimization as optimization
        import tf_keras
    except ImportError as error:
        install = "pip install 'edgedeploy[tensorflow]'"
        raise MissingToolError("tf-keras with tensorflow-model-optimization", install=install) from error
    with (
        optimization.sparsity.keras.prune_scope(),
        optimization.clustering.keras.cluster_scope(),
    ):
        try:
            model = tf_keras.models.load_model(path, compile=False, safe_mode=True)
        except (OSError, ValueError, TypeError) as error:
            remedy = "Save it with tf_keras (Keras 2); files of Keras 3 cannot be read by it."
            raise InputError(f"{path} is not a Keras-2 model.", found=str(error)[:300], remedy=remedy) from None
    return strip(model)


def strip(model: Any) -> Any:
    """Remove the wrappers of pruning and clustering; the zeros and the shared values stay in the weights."""
    import tensorflow_model_optimization as optimization

    return optimization.clustering.keras.strip_clustering(optimization.sparsity.keras.strip_pruning(model))


def to_onnx(model: Any) -> onnx.ModelProto:
    """Translate a functional or sequential model, batch 1.

    Raises:
        UnsupportedOpError: for layers without a translation, all of them named.
    """
    unknown = [
        (type(layer).__name__, layer.name, "no translation") for layer in model.layers if _translator(layer) is None
    ]
    if unknown:
        raise UnsupportedOpError("the Keras front end", unknown, sorted(_LAYERS))
    return _Translation(model).build()


class _Translation:
    def __init__(self, model: Any) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.names: dict[str, str] = {}
        self.count = 0

    def build(self) -> onnx.ModelProto:
        inputs = []
        for tensor in self.model.inputs:
            name = tensor.name.split(":")[0]
            shape = [1, *tensor.shape[1:]]
            inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
            image = len(shape) == 4
            self.names[_producer(tensor)] = self.add("Transpose", [name], perm=_TO_CHANNELS_FIRST) if image else name
        for layer in self.model.layers:
            translate = _translator(layer)
            if translate is None or type(layer).__name__ == "InputLayer":
                continue
            source = layer.input if isinstance(layer.input, list) else [layer.input]
            self.names[layer.name] = translate(self, layer, [self.names[_producer(tensor)] for tensor in source])
        outputs = []
        for index, tensor in enumerate(self.model.outputs):
            name = self.names[_producer(tensor)]
            name = self.add("Transpose", [name], perm=_TO_CHANNELS_LAST) if len(tensor.shape) == 4 else name
            self.nodes.append(helper.make_node("Identity", [name], [f"output{index}"], name=f"output{index}"))
            outputs.append(helper.make_tensor_value_info(f"output{index}", TensorProto.FLOAT, [1, *tensor.shape[1:]]))
        graph = helper.make_graph(self.nodes, self.model.name, inputs, outputs, self.constants)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        onnx.checker.check_model(made, full_check=True)
        return made

    def add(self, op_type: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        self.count += 1
        output = f"{name or op_type}_{self.count}"
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: Any) -> str:
        self.count += 1
        full = f"{name}_{self.count}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), full))
        return full

    def activated(self, layer: Any, source: str) -> str:
        kind = getattr(layer.activation, "__name__", str(layer.activation))
        if kind == "linear":
            return source
        if kind == "relu6":
            low, high = self.constant("zero", np.float32(0)), self.constant("six", np.float32(6))
            return self.add("Clip", [source, low, high], layer.name)
        if kind not in _ACTIVATIONS:
            raise UnsupportedOpError("the Keras front end", [("activation", layer.name, kind)], sorted(_ACTIVATIONS))
        return self.add(_ACTIVATIONS[kind], [source], layer.name)


def _convolution(to: _Translation, layer: Any, sources: list[str]) -> str:
    kernel, *bias = (np.asarray(value, np.float32) for value in layer.get_weights())
    if type(layer).__name__ == "DepthwiseConv2D":
        height, width, channels, multiplier = kernel.shape
        weights, group = kernel.reshape(height, width, channels * multiplier, 1).transpose(2, 3, 0, 1), channels
    else:
        weights, group = kernel.transpose(3, 2, 0, 1), int(layer.groups)
    operands = [sources[0], to.constant(f"{layer.name}/weights", weights)]
    operands += [to.constant(f"{layer.name}/bias", bias[0])] if bias else []
    made = to.add(
        "Conv", operands, layer.name, group=group, strides=list(layer.strides), kernel_shape=list(kernel.shape[:2]),
        dilations=list(layer.dilation_rate), auto_pad=_PADDING[layer.padding],
    )  # fmt: skip
    return to.activated(layer, made)


def _dense(to: _Translation, layer: Any, sources: list[str]) -> str:
    weights, *bias = (np.asarray(value, np.float32) for value in layer.get_weights())
    operands = [sources[0], to.constant(f"{layer.name}/weights", weights)]
    operands += [to.constant(f"{layer.name}/bias", bias[0])] if bias else []
    return to.activated(layer, to.add("Gemm", operands, layer.name))


def _batch_norm(to: _Translation, layer: Any, sources: list[str]) -> str:
    size = layer.moving_mean.shape[0]
    gamma = layer.gamma.numpy() if layer.scale else np.ones(size, np.float32)
    beta = layer.beta.numpy() if layer.center else np.zeros(size, np.float32)
    values = (gamma, beta, layer.moving_mean.numpy(), layer.moving_variance.numpy())
    operands = [to.constant(f"{layer.name}/{index}", value) for index, value in enumerate(values)]
    return to.add("BatchNormalization", [sources[0], *operands], layer.name, epsilon=float(layer.epsilon))


def _relu(to: _Translation, layer: Any, sources: list[str]) -> str:
    if layer.max_value is None:
        return to.add("Relu", sources, layer.name)
    high = to.constant("high", np.float32(layer.max_value))
    return to.add("Clip", [sources[0], to.constant("low", np.float32(0)), high], layer.name)


def _pool(to: _Translation, layer: Any, sources: list[str]) -> str:
    op_type = "MaxPool" if type(layer).__name__ == "MaxPooling2D" else "AveragePool"
    return to.add(
        op_type, sources, layer.name, kernel_shape=list(layer.pool_size), strides=list(layer.strides),
        auto_pad=_PADDING[layer.padding],
    )  # fmt: skip


def _global_average(to: _Translation, layer: Any, sources: list[str]) -> str:
    axes = to.constant("axes", np.asarray([2, 3], np.int64))
    return to.add("ReduceMean", [sources[0], axes], layer.name, keepdims=int(layer.keepdims))


def _flatten(to: _Translation, layer: Any, sources: list[str]) -> str:
    source = sources[0]
    if len(layer.input.shape) == 4:
        source = to.add("Transpose", [source], perm=_TO_CHANNELS_LAST)
    return to.add("Reshape", [source, to.constant("shape", np.asarray([1, -1], np.int64))], layer.name)


def _zero_padding(to: _Translation, layer: Any, sources: list[str]) -> str:
    (top, bottom), (left, right) = layer.padding
    pads = to.constant("pads", np.asarray([0, 0, top, left, 0, 0, bottom, right], np.int64))
    return to.add("Pad", [sources[0], pads], layer.name)


def _concatenate(to: _Translation, layer: Any, sources: list[str]) -> str:
    image = len(layer.output.shape) == 4
    axis = layer.axis % len(layer.output.shape)
    return to.add("Concat", sources, layer.name, axis={0: 0, 1: 2, 2: 3, 3: 1}[axis] if image else axis)


_PADDING = {"same": "SAME_UPPER", "valid": "VALID"}

_LAYERS: dict[str, Any] = {
    "InputLayer": lambda to, layer, sources: sources[0],
    "Dropout": lambda to, layer, sources: sources[0],
    "Conv2D": _convolution,
    "DepthwiseConv2D": _convolution,
    "Dense": _dense,
    "BatchNormalization": _batch_norm,
    "ReLU": _relu,
    "Activation": lambda to, layer, sources: to.activated(layer, sources[0]),
    "Softmax": lambda to, layer, sources: to.add("Softmax", sources, layer.name),
    "MaxPooling2D": _pool,
    "AveragePooling2D": _pool,
    "GlobalAveragePooling2D": _global_average,
    "Flatten": _flatten,
    "ZeroPadding2D": _zero_padding,
    "Add": lambda to, layer, sources: to.add("Add", sources, layer.name),
    "Multiply": lambda to, layer, sources: to.add("Mul", sources, layer.name),
    "Concatenate": _concatenate,
}


def _translator(layer: Any) -> Any:
    return _LAYERS.get(type(layer).__name__)


def _producer(tensor: Any) -> str:
    """Name of the layer that makes a symbolic tensor; loading and cloning do not keep the tensor objects."""
    return str(tensor._keras_history.layer.name)


def main() -> None:
    """Translate a file."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m edgedeploy.exporters.tflite_micro.keras MODEL.keras OUT.onnx")
    Path(sys.argv[2]).write_bytes(to_onnx(load_keras(Path(sys.argv[1]))).SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
