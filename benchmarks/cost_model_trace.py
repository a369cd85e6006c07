"""Op lists of PyTorch networks without weights, memory or export: run on meta tensors and watch the aten ops.

`trace` gives the same `OpFacts` that a captured graph gives, batch norms folded into the layer before them, so that
the cost model is fitted on what it will later be asked about. A network takes well under a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgedeploy.graph.facts import OpFacts
from edgedeploy.graph.macs import macs
from edgedeploy.tensors import TensorSpec

#: aten op → ONNX op that the capture would show for it; "" where nothing is left of it.
NAMES: dict[str, str] = {
    "addmm": "Gemm",
    "linear": "Gemm",
    "mm": "MatMul",
    "bmm": "MatMul",
    "baddbmm": "MatMul",
    "matmul": "MatMul",
    "relu": "Relu",
    "hardtanh": "Clip",
    "clamp": "Clip",
    "clamp_min": "Clip",
    "leaky_relu": "LeakyRelu",
    "_prelu_kernel": "PRelu",
    "prelu": "PRelu",
    "silu": "Swish",
    "gelu": "Gelu",
    "mish": "Mish",
    "hardswish": "HardSwish",
    "hardsigmoid": "HardSigmoid",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "elu": "Elu",
    "softplus": "Softplus",
    "exp": "Exp",
    "erf": "Erf",
    "sqrt": "Sqrt",
    "rsqrt": "Sqrt",
    "pow": "Pow",
    "add": "Add",
    "sub": "Sub",
    "rsub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "neg": "Neg",
    "maximum": "Max",
    "where": "Where",
    "masked_fill": "Where",
    "_softmax": "Softmax",
    "_safe_softmax": "Softmax",
    "_log_softmax": "LogSoftmax",
    "native_layer_norm": "LayerNormalization",
    "native_group_norm": "GroupNormalization",
    "max_pool2d_with_indices": "MaxPool",
    "max_pool3d_with_indices": "MaxPool",
    "avg_pool2d": "AveragePool",
    "_adaptive_avg_pool2d": "AveragePool",
    "_adaptive_avg_pool3d": "AveragePool",
    "mean": "ReduceMean",
    "sum": "ReduceSum",
    "var": "ReduceMean",
    "amax": "ReduceMax",
    "max": "ReduceMax",
    "argmax": "ArgMax",
    "norm": "ReduceL2",
    "flip": "Slice",
    "eq": "Equal",
    "gt": "Greater",
    "linalg_vector_norm": "ReduceL2",
    "upsample_bilinear2d": "Resize",
    "upsample_nearest2d": "Resize",
    "upsample_bicubic2d": "Resize",
    "pixel_shuffle": "DepthToSpace",
    "pixel_unshuffle": "SpaceToDepth",
    "cat": "Concat",
    "stack": "Concat",
    "split": "Split",
    "split_with_sizes": "Split",
    "chunk": "Split",
    "unbind": "Split",
    "slice": "Slice",
    "select": "Slice",
    "permute": "Transpose",
    "transpose": "Transpose",
    "t": "Transpose",
    "constant_pad_nd": "Pad",
    "reflection_pad2d": "Pad",
    "roll": "Concat",
    "embedding": "Gather",
    "index": "Gather",
    "gather": "Gather",
    "expand": "Expand",
    "view": "Reshape",
    "_unsafe_view": "Reshape",
    "reshape": "Reshape",
    "unsqueeze": "Unsqueeze",
    "squeeze": "Squeeze",
    "clone": "",
    "contiguous": "",
    "as_strided": "Reshape",
    "addcmul": "Mul",
    "detach": "",
    "alias": "",
    "_to_copy": "",
    "dropout": "",
    "copy": "",
}

#: Ops that take only the shape of what they are given.
_CREATION = {"new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like", "empty_like"}


class _Recorder(TorchDispatchMode):
    def __init__(self, weights: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.facts: list[OpFacts] = []
        self._kept: list[object] = list(weights)
        self._weights = {id(tensor) for tensor in weights}
        self._names: dict[int, str] = {}
        self._convs: set[str] = set()

    def feed(self, tensor: torch.Tensor) -> None:
        self._names[id(tensor)] = f"input{len(self._kept)}"
        self._kept.append(tensor)

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        aten = function.overloadpacket.__name__.removesuffix("_")
        tensors = list(_tensors(arguments))
        outputs = [item for item in _tensors((result,)) if item.numel()]
        self._kept += [*tensors, *outputs]
        live = [item for item in tensors if id(item) in self._names]
        fixed = [item for item in tensors if id(item) not in self._names]
        if not live or aten in _CREATION:  # computed from weights or shapes alone: a constant
            return result
        source = self._names[id(live[0])]
        if aten in ("native_batch_norm", "_native_batch_norm_legit_no_training", "batch_norm", "cudnn_batch_norm"):
            outputs = outputs[:1]
            if source in self._convs:
                self._names[id(outputs[0])] = source
                self._convs.add(source)
                return result
            self._record("BatchNormalization", live, fixed, outputs, {})
        elif aten == "convolution":
            self._convolution(arguments, live, fixed, outputs)
        elif NAMES.get(aten, aten) == "" or (aten == "copy" and len(live) < 2):
            for item in outputs:
                self._names[id(item)] = source
        elif aten in ("native_layer_norm", "native_group_norm", "max_pool2d_with_indices", "max_pool3d_with_indices"):
            self._record(NAMES[aten], live, fixed, outputs[:1], {})
        elif aten in ("avg_pool2d", "_adaptive_avg_pool2d"):
            ratio = live[0].shape[-2] * live[0].shape[-1] // max(1, outputs[0].shape[-2] * outputs[0].shape[-1])
            self._record("AveragePool", live, fixed, outputs, {"kernel_shape": (max(1, ratio),)})
        elif aten in ("permute", "transpose", "t"):
            self._record("Transpose", live, fixed, outputs, {"perm": _permutation(aten, arguments)})
        else:
            self._record(NAMES.get(aten, aten), live, fixed, outputs, {})
        return result

    def needed(self, results) -> tuple[OpFacts, ...]:
        """The ops that ``results`` depend on: exporters drop the others."""
        alive = {self._names.get(id(item)) for item in tree_leaves(results) if isinstance(item, torch.Tensor)}
        kept = []
        for op in reversed(self.facts):
            if any(tensor.name in alive for tensor in op.outputs):
                alive.update(tensor.name for tensor in op.inputs)
                kept.append(op)
        return tuple(reversed(kept))

    def _convolution(self, arguments, live, fixed, outputs) -> None:
        transposed, groups = arguments[6], arguments[8]
        attributes = {
            "strides": tuple(arguments[3]),
            "dilations": tuple(arguments[5]),
            "group": groups,
            "kernel_shape": tuple(arguments[1].shape[2:]),
        }
        self._record("ConvTranspose" if transposed else "Conv", live, fixed, outputs, attributes)
        self._convs.add(self._names[id(outputs[0])])

    def _record(self, op_type, live, fixed, outputs, attributes) -> None:
        if not outputs:
            return
        name = f"{op_type}_{len(self.facts)}"
        operands = [*live, *fixed]
        count = macs(
            op_type,
            [tuple(item.shape) for item in operands],
            [tuple(item.shape) for item in outputs],
            attributes,
        )
        inputs = tuple(TensorSpec(self._names[id(item)], tuple(item.shape), "float32") for item in live)
        weights = tuple(TensorSpec(f"{name}.w{i}", tuple(item.shape), "float32") for i, item in enumerate(fixed))
        for index, item in enumerate(outputs):
            self._names[id(item)] = f"{name}.{index}"
        made = tuple(TensorSpec(self._names[id(item)], tuple(item.shape), "float32") for item in outputs)
        parameters = sum(prod(item.shape) for item in fixed)
        self.facts.append(OpFacts(name, op_type, inputs, made, weights, count, parameters, attributes))


def trace(network: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> tuple[OpFacts, ...]:
    """Run ``network`` on meta tensors and return its ops in order.

    Args:
        network: built under ``torch.device("meta")``.
        inputs: meta tensors; batch of 1.
    """
    network.eval()
    recorder = _Recorder([*network.parameters(), *network.buffers()])
    for item in inputs:
        recorder.feed(item)
    with torch.no_grad(), recorder:
        results = network(*inputs)
    return recorder.needed(results)


def _permutation(aten: str, arguments) -> tuple[int, ...]:
    rank = arguments[0].dim()
    if aten == "permute":
        return tuple(axis % rank for axis in arguments[1])
    axes = list(range(rank))
    one, two = (axis % rank for axis in arguments[1:3]) if aten == "transpose" else (0, rank - 1)
    axes[one], axes[two] = axes[two], axes[one]
    return tuple(axes)


def _tensors(values):
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
