"""Reshape, Flatten, Squeeze, Unsqueeze, Transpose: mostly a change of layout, no data moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgedeploy.exporters.tflite_micro.layout import UNIT, reshape_groups, stored_shape, through_reshape, transposed
from edgedeploy.exporters.tflite_micro.lowering import Lowering
from edgedeploy.exporters.tflite_micro.qdq import Node, Value
from edgedeploy.exporters.tflite_micro.registry import handles

if TYPE_CHECKING:
    from numpy.typing import NDArray


@handles("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(lower: Lowering, node: Node) -> None:
    """A RESHAPE; a flatten before fully connected layers leaves its elements scrambled and they undo it."""
    value, output = node.input(0), node.output
    layout = lower.layout_of(value)
    needed, result = through_reshape(value.shape, output.shape, layout)
    if needed != layout:
        order = flatten_order(lower, node, value, output)
        if order is not None:
            index = lower.define(output, tuple(range(output.rank)), scramble=order)
            lower.reshape(lower.operand(value), output.shape, index)
            return
    source = lower.operand(value, needed)
    if lower.model.tensors[source].shape == stored_shape(output.shape, result):
        lower.alias(output, source, result)
    else:
        lower.reshape(source, stored_shape(output.shape, result), lower.define(output, result))


def flatten_order(lower: Lowering, node: Node, value: Value, output: Value) -> NDArray[np.int64] | None:
    """Source positions of the last axis' elements in stored order, if only fully connected layers read them."""
    readers = lower.consumers.get(output, [])
    if not readers or any(output is graph_output for _, graph_output in lower.graph.outputs):
        return None
    if not all(_is_dense(reader, output) for reader in readers):
        return None
    groups = reshape_groups(value.shape, output.shape)
    if not groups or groups[-1][1] != (output.rank - 1,):
        return None
    merged = groups[-1][0]
    stored = [axis for axis in lower.layout_of(value) if axis != UNIT and value.shape[axis] != 1]
    before = [axis for axis in stored if axis not in merged]
    if stored[: len(before)] != sorted(before):
        return None
    sizes = [value.shape[axis] for axis in merged]
    positions = np.arange(int(np.prod(sizes)), dtype=np.int64).reshape(sizes)
    return positions.transpose([merged.index(axis) for axis in stored[len(before) :]]).reshape(-1)


def _is_dense(node: Node, value: Value) -> bool:
    weights = node.optional(1)
    dense = node.op_type == "Gemm" or (node.op_type == "MatMul" and weights is not None and weights.rank == 2)
    return dense and node.inputs[0] is value and weights is not None and weights.data is not None


@handles("Transpose")
def transpose(lower: Lowering, node: Node) -> None:
    """No data moves here; an operator that needs another order moves it."""
    value = node.input(0)
    permutation = tuple(node.attributes.get("perm", tuple(reversed(range(value.rank)))))
    layout = lower.layout_of(value)
    lower.alias(node.output, lower.operand(value), transposed(layout, permutation))
