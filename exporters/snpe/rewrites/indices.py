"""Indices as int32: Hexagon has no 64-bit integers, and a cast inside the graph would be one op more."""

from __future__ import annotations

import onnx
from onnx import TensorProto


def narrow_indices(model: onnx.ModelProto) -> list[str]:
    """Make every int64 input that only picks rows (Gather) an int32 one, in place; returns their names."""
    narrowed = []
    for value in model.graph.input:
        if value.type.tensor_type.elem_type != TensorProto.INT64:
            continue
        readers = [node for node in model.graph.node if value.name in node.input]
        if readers and all(node.op_type == "Gather" and node.input[0] != value.name for node in readers):
            value.type.tensor_type.elem_type = TensorProto.INT32
            narrowed.append(value.name)
    return narrowed
