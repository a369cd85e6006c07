"""Small Q/DQ graphs of the scheme ``tflite`` built by hand, and what runs them: LiteRT, TFLite Micro, float ONNX.

A graph is written as a float ONNX graph; ranges come from running it over the samples, so that every op is tested
with the scales it would get.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

FIXED = {"Sigmoid": (1 / 256, -128), "Softmax": (1 / 256, -128), "Tanh": (1 / 128, 0), "LogSoftmax": (16 / 256, 127)}
SAME_SCALE = frozenset(
    {
        *("Concat", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Pad", "Gather"),
        *("MaxPool", "AveragePool", "GlobalMaxPool", "Resize", "Max", "Min", "ReduceMax", "Clip"),
        *("DepthToSpace", "SpaceToDepth", "Expand", "Tile"),
    }
)


@dataclass
class FloatGraph:
    """A float graph with one input ``x``; ``weights`` maps initializer names to arrays."""

    nodes: list[onnx.NodeProto]
    input_shape: tuple[int, ...]
    outputs: Sequence[str]
    weights: dict[str, np.ndarray]
    input_dtype: str = "float32"

    def model(self) -> onnx.ModelProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.input_dtype))
        graph = helper.make_graph(
            self.nodes,
            "one_op",
            [helper.make_tensor_value_info("x", kind, self.input_shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.outputs],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)

    def run(self, samples: np.ndarray, names: Sequence[str] | None = None) -> list[np.ndarray]:
        """Float outputs of every sample, stacked."""
        names = list(names or self.outputs)
        model = self.model()
        del model.graph.output[:]
        model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        runs = [session.run(names, {"x": sample}) for sample in samples]
        return [np.stack(column) for column in zip(*runs, strict=True)]


def quantized(graph: FloatGraph, samples: np.ndarray, *, wide: bool = False, fuse: bool = True) -> onnx.ModelProto:
    """The graph with Q/DQ pairs by the conventions of the scheme ``tflite`` (``wide``: int16 activations)."""
    return _Quantizer(graph, samples, wide, fuse).model


class _Quantizer:
    def __init__(self, graph: FloatGraph, samples: np.ndarray, wide: bool, fuse: bool) -> None:
        self.graph, self.wide, self.fuse = graph, wide, fuse
        self.source = graph.model()
        self.initializers = dict(graph.weights)
        self.nodes: list[onnx.NodeProto] = []
        names = [name for node in graph.nodes for name in node.output]
        floats = [name for name in names if self._is_float(name)]
        self.ranges = {
            name: (array.min(), array.max()) for name, array in zip(floats, graph.run(samples, floats), strict=True)
        }
        self.ranges["x"] = (samples.min(), samples.max())
        self.scales: dict[str, tuple[float, int]] = {}
        self.model = self._build()

    def _is_float(self, name: str) -> bool:
        for value in (*self.source.graph.value_info, *self.source.graph.output, *self.source.graph.input):
            if value.name == name:
                return value.type.tensor_type.elem_type == TensorProto.FLOAT
        return True

    def _scale(self, name: str, node: onnx.NodeProto | None) -> tuple[float, int]:
        if self.wide:
            if node is not None and node.op_type in FIXED:
                return 2.0**-15, 0
        elif node is not None and node.op_type in FIXED:
            return FIXED[node.op_type]
        moves = node is not None and node.op_type in SAME_SCALE - {"Concat", "Max", "Min", "Clip"}
        if node is not None and moves and node.input[0] in self.scales:
            return self.scales[node.input[0]]
        low, high = (float(side) for side in self.ranges[name])
        low, high = min(low, 0.0), max(high, 0.0)
        if self.wide:
            return max(-low, high, 1e-6) / 32767, 0
        scale = max(high - low, 1e-6) / 255
        return scale, int(np.clip(round(-128 - low / scale), -128, 127))

    def _build(self) -> onnx.ModelProto:
        self.names: dict[str, str] = {}
        if self.graph.input_dtype == "float32":
            self._pair("x", None)
        consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.nodes:
            for name in node.input:
                consumers.setdefault(name, []).append(node)
        for node in self.graph.nodes:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = copy.name or f"{node.op_type}_{node.output[0]}"
            for index, name in enumerate(node.input):
                if name in self.names:
                    copy.input[index] = self.names[name]
                elif name in self.graph.weights:
                    copy.input[index] = self._weight(node, index, name)
            self.nodes.append(copy)
            for name in node.output:
                readers = consumers.get(name, [])
                fused = self.fuse and len(readers) == 1 and readers[0].op_type in ("Relu", "Clip")
                fused = fused and node.op_type in ("Conv", "Gemm", "Add", "Mul", "Sub", "ConvTranspose", "MatMul")
                if self._is_float(name) and not (fused and name not in self.graph.outputs):
                    self._pair(name, node)
        outputs = [
            helper.make_tensor_value_info(self.names[name], TensorProto.FLOAT, None) for name in self.graph.outputs
        ]
        graph = helper.make_graph(
            self.nodes,
            "quantized",
            self.source.graph.input,
            outputs,
            [numpy_helper.from_array(np.asarray(array), name) for name, array in self.initializers.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)

    def _pair(self, name: str, node: onnx.NodeProto | None) -> None:
        scale, point = self.scales[name] = self._scale(name, node)
        dtype = np.int16 if self.wide else np.int8
        self.initializers[f"{name}_scale"] = np.float32(scale)
        self.initializers[f"{name}_zero_point"] = dtype(point)
        parameters = [f"{name}_scale", f"{name}_zero_point"]
        self.nodes.append(helper.make_node("QuantizeLinear", [name, *parameters], [f"{name}_quantized"]))
        self.nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}_quantized", *parameters], [f"{name}_dequantized"])
        )
        self.names[name] = f"{name}_dequantized"

    def _weight(self, node: onnx.NodeProto, index: int, name: str) -> str:
        array = self.graph.weights[name]
        if array.dtype != np.float32 or (node.op_type, index) in (("Clip", 1), ("Clip", 2), ("Pad", 2), ("Resize", 2)):
            return name
        weighted = node.op_type in ("Conv", "Gemm", "MatMul", "ConvTranspose")
        if weighted and index == 1 and array.ndim > 1:
            transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            axis = {"Conv": 0, "ConvTranspose": 1, "MatMul": array.ndim - 1, "Gemm": 0 if transposed else 1}[
                node.op_type
            ]
            others = tuple(other for other in range(array.ndim) if other != axis)
            if node.op_type == "MatMul" and array.ndim > 2:
                return self._constant(name, array, np.float32([np.abs(array).max() / 127]), 0, None)
            scale = (np.maximum(np.abs(array).max(others), 1e-6) / 127).astype(np.float32)
            self.scales[name] = scale
            return self._constant(name, array, scale, 0, axis)
        if weighted and index == 2:
            scale = np.float32(self.scales[node.input[0]][0] * self.scales.get(node.input[1], np.float32(0)))
            if not np.any(scale):
                return name
            if scale.size > 1:
                scale = np.tile(scale, array.size // scale.size)  # the groups of a ConvTranspose share their scales
            return self._constant(name, array, scale.reshape(-1), 0, 0, np.int64 if self.wide else np.int32)
        if node.op_type in ("LayerNormalization", "PRelu", "BatchNormalization"):
            return name
        low, high = min(float(array.min()), 0.0), max(float(array.max()), 0.0)
        if self.wide:
            return self._constant(name, array, np.float32([max(-low, high) / 32767]), 0, None, np.int16)
        scale = np.float32([(high - low) / 255])
        point = int(np.clip(round(-128 - low / float(scale[0])), -128, 127))
        return self._constant(name, array, scale, point, None)

    def _constant(
        self, name: str, array: np.ndarray, scale: np.ndarray, point: int, axis: int | None, dtype: type = np.int8
    ) -> str:
        shape = [1] * array.ndim
        if axis is not None:
            shape[axis] = -1
        info = np.iinfo(dtype)
        codes = np.clip(np.rint(array / scale.reshape(shape if axis is not None else [])) + point, info.min, info.max)
        stored = dtype if dtype is not np.int64 else np.int32
        self.initializers[f"{name}_quantized"] = codes.astype(stored)
        self.initializers[f"{name}_scale"] = scale if axis is not None else np.float32(scale.reshape(()))
        zero = np.full(scale.shape, point, stored)
        self.initializers[f"{name}_zero_point"] = zero if axis is not None else stored(point)
        inputs = [f"{name}_quantized", f"{name}_scale", f"{name}_zero_point"]
        self.nodes.append(
            helper.make_node("DequantizeLinear", inputs, [f"{name}_dequantized"], axis=axis if axis is not None else 1)
        )
        return f"{name}_dequantized"
