"""The second operand of a product of two 16-bit activations, rounded to 8 bits where Hexagon rounds it.

V68 multiplies 16-bit activations by 8-bit operands only, so QNN converts the second one, by a range of its own making
that no Q/DQ simulation knows of. Here the conversion stands in the graph, with the calibrated range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.calibration.quantizer.encoding import activation_encoding

if TYPE_CHECKING:
    from edgedeploy.calibration.scheme import IntegerFormat
    from edgedeploy.calibration.table import CalibrationTable


def narrow_operands(model: onnx.ModelProto, table: CalibrationTable, form: IntegerFormat) -> int:
    """Insert the conversions in place; returns how many.

    Args:
        model: a Q/DQ model as `quantize` makes it: a tensor T is stored as T_quantized.
        form: the 8-bit format.

    """
    graph = model.graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    inserted: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        first, second = (producers.get(name) for name in node.input[:2]) if node.op_type == "MatMul" else (None, None)
        if first is not None and second is not None and _wide(first, types) and _wide(second, types):
            name = second.input[0]
            if name not in inserted:
                inserted[name] = _already_narrow(second, producers, types) or _convert(
                    graph, nodes, second, table, form
                )
            node.input[1] = inserted[name]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return len(inserted)


def _wide(node: onnx.NodeProto, types: dict[str, int]) -> bool:
    """True for a run-time tensor read from 16 bits."""
    return (
        node.op_type == "DequantizeLinear" and node.input[0] not in types and types[node.input[2]] == TensorProto.UINT16
    )


def _already_narrow(node: onnx.NodeProto, producers: dict[str, onnx.NodeProto], types: dict[str, int]) -> str:
    """The 8-bit tensor that was widened to what ``node`` reads, or empty."""
    widened = producers[node.input[0]]
    before = producers.get(widened.input[0])
    narrow = before is not None and before.op_type == "DequantizeLinear" and types[before.input[2]] == TensorProto.UINT8
    return str(widened.input[0]) if narrow else ""


def _convert(
    graph: onnx.GraphProto,
    nodes: list[onnx.NodeProto],
    source: onnx.NodeProto,
    table: CalibrationTable,
    form: IntegerFormat,
) -> str:
    tensor = source.input[0].removesuffix("_quantized")
    span = table.range(tensor, form)
    encoding = activation_encoding(span.low, span.high, form)
    scale, zero = f"{tensor}_narrow_scale", f"{tensor}_narrow_zero_point"
    graph.initializer.append(numpy_helper.from_array(encoding.scale, scale))
    graph.initializer.append(numpy_helper.from_array(encoding.zero_point.astype(np.dtype(form.dtype)), zero))
    stored, read = f"{tensor}_narrow_quantized", f"{tensor}_narrow_dequantized"
    nodes.append(helper.make_node("QuantizeLinear", [source.output[0], scale, zero], [stored], name=stored))
    nodes.append(helper.make_node("DequantizeLinear", [stored, scale, zero], [read], name=read))
    return read
