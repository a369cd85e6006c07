"""What TensorRT refuses (or crashes on) and can be seen in the graph alone, said before its parser runs.

One function a constraint; its docstring is the message. Each was seen with NVIDIA's parser or builder 1.7.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

_INT32 = np.iinfo(np.int32)
_INTEGER_OPS = frozenset({"QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger", "DynamicQuantizeLinear"})


@dataclass(frozen=True)
class Finding:
    """One thing TensorRT will not take."""

    node: str
    op_type: str
    reason: str


@dataclass(frozen=True)
class _View:
    constants: Mapping[str, onnx.TensorProto]
    runtime: frozenset[str]
    producers: Mapping[str, onnx.NodeProto]

    def array(self, name: str) -> np.ndarray | None:
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)


_Rule = Callable[[onnx.NodeProto, _View], bool]


def lint(model: onnx.ModelProto) -> tuple[Finding, ...]:
    """Return every finding, in graph order."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    runtime = {value.name for value in graph.input} - set(constants)
    producers = {}
    for node in graph.node:
        producers.update(dict.fromkeys(node.output, node))
        if any(name in runtime for name in node.input):
            runtime.update(node.output)
    view = _View(constants, frozenset(runtime), producers)
    return tuple(_findings(graph, view))


def _findings(graph: onnx.GraphProto, view: _View) -> Iterator[Finding]:
    for node in graph.node:
        for rule in _RULES:
            if rule(node, view):
                yield Finding(node.name, node.op_type, " ".join((rule.__doc__ or "").split()))
    for node in graph.node:
        for name in node.input:
            if _int64_out_of_range(name, view):
                reason = f"int64 constant {name!r} has values outside int32, which TensorRT would clamp"
                yield Finding(node.name, node.op_type, reason)


def _int64_out_of_range(name: str, view: _View) -> bool:
    tensor = view.constants.get(name)
    if tensor is None or tensor.data_type != onnx.TensorProto.INT64:
        return False
    values = numpy_helper.to_array(tensor)
    # Slice and Gather mean "to the end" by the extreme values, which TensorRT understands.
    inner = values[(values != np.iinfo(np.int64).max) & (values != np.iinfo(np.int64).min)]
    return bool(inner.size and (inner.max() > _INT32.max or inner.min() < _INT32.min))


def _integer_op(node: onnx.NodeProto, view: _View) -> bool:
    """Integer ops are not imported; express quantization by QuantizeLinear and DequantizeLinear."""
    return node.op_type in _INTEGER_OPS


def _runtime_scale(node: onnx.NodeProto, view: _View) -> bool:
    """The scale is computed at run time, which crashes NVIDIA's builder; it must be a constant."""
    return _is_qdq(node) and node.input[1] in view.runtime


def _zero_scale(node: onnx.NodeProto, view: _View) -> bool:
    """The scale is zero, negative or not finite."""
    scale = view.array(node.input[1]) if _is_qdq(node) else None
    return scale is not None and not bool(np.all(np.isfinite(scale) & (scale > 0)))


def _zero_point(node: onnx.NodeProto, view: _View) -> bool:
    """The zero point is not 0; TensorRT quantizes symmetrically."""
    zero = view.array(node.input[2]) if _is_qdq(node) and len(node.input) > 2 else None
    return zero is not None and bool(np.any(zero))


def _not_int8(node: onnx.NodeProto, view: _View) -> bool:
    """The integers are not signed 8-bit (nor int4 weights); unsigned, 16-bit and int32-bias forms are refused."""
    if not _is_qdq(node):
        return False
    stored = view.constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
    zero = view.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    allowed = {onnx.TensorProto.INT8, onnx.TensorProto.INT4, onnx.TensorProto.FLOAT8E4M3FN}
    kinds = {tensor.data_type for tensor in (stored, zero) if tensor is not None}
    if node.op_type == "QuantizeLinear" and not kinds:
        return True  # without a zero point the standard's type is uint8
    return not kinds <= allowed


def _quantized_gather(node: onnx.NodeProto, view: _View) -> bool:
    """Dequantizing after Gather parses and then fails to build; dequantize the table before it."""
    producer = view.producers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
    return producer is not None and producer.op_type == "Gather"


def _is_qdq(node: onnx.NodeProto) -> bool:
    return node.op_type in ("QuantizeLinear", "DequantizeLinear")


_RULES: tuple[_Rule, ...] = (_integer_op, _runtime_scale, _zero_scale, _zero_point, _not_int8, _quantized_gather)
