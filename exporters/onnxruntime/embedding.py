"""Stores embedding tables as int8, one scale a row: a quarter of the bytes at 0.3 % of a row's largest value.

onnxruntime's dynamic quantizer has one scale for a whole table, and its weight-only one packs tables to 4 bits only.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.exporters.onnxruntime.linear import keep_used

#: Smaller tables are not worth the extra nodes.
SMALLEST_TABLE = 4096


def quantize_embeddings(model: onnx.ModelProto) -> int:
    """Quantize every Gather of rows out of a constant float (rows, width) table, in place; returns how many."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in graph.node:
        table = constants.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or not _is_table(node, table):
            nodes.append(node)
            continue
        codes, scales = f"{table.name}_int8", f"{table.name}_row_scales"
        if codes not in constants:
            values, row_scales = _rows_to_int8(numpy_helper.to_array(table))
            constants[codes] = numpy_helper.from_array(values, codes)
            constants[scales] = numpy_helper.from_array(row_scales, scales)
        output, indices = node.output[0], node.input[1]
        nodes += [
            helper.make_node("Gather", [codes, indices], [f"{output}_int8"], name=node.name, axis=0),
            helper.make_node("Gather", [scales, indices], [f"{output}_scale"], name=f"{node.name}_scale", axis=0),
            helper.make_node(
                "Cast", [f"{output}_int8"], [f"{output}_codes"], name=f"{node.name}_cast", to=TensorProto.FLOAT
            ),
            helper.make_node("Mul", [f"{output}_codes", f"{output}_scale"], [output], name=f"{node.name}_dequantize"),
        ]
        count += 1
    del graph.node[:]
    graph.node.extend(nodes)
    keep_used(graph, constants)
    return count


def _is_table(node: onnx.NodeProto, table: onnx.TensorProto) -> bool:
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    return (
        axis == 0
        and table.data_type == TensorProto.FLOAT
        and len(table.dims) == 2
        and table.dims[0] * table.dims[1] >= SMALLEST_TABLE
    )


def _rows_to_int8(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 codes, shape (rows, width), and float32 scales, shape (rows, 1)."""
    largest = np.abs(table).max(axis=1, keepdims=True)
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.clip(np.rint(table / scales), -127, 127).astype(np.int8), scales
