"""Tensors that carry a state from one step to the next: 8 bits would add their rounding up, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

#: What a state passes through on its way to its next value: a product with weights forms a new one instead.
_ARITHMETIC = frozenset({"Add", "Clip", "Div", "Mul", "Relu", "Sigmoid", "Sub", "Tanh"})
_MOVEMENT = frozenset(
    ["Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
     "Unsqueeze"]
)  # fmt: skip


def carried(model: onnx.ModelProto, states: Mapping[str, str]) -> frozenset[str]:
    """The run-time tensors between a state and its next value, both included; none of a state that is only moved.

    Args:
        model: the float graph.
        states: graph input by graph output.
    """
    found: set[str] = set()
    for output, name in states.items():
        after = _reached([name], [(node.input, node.output, node.op_type) for node in model.graph.node])
        before = _reached([output], [(node.output, node.input, node.op_type) for node in reversed(model.graph.node)])
        between = after & before
        passed = {node.op_type for node in model.graph.node if between.intersection(node.output)}
        if not passed:
            found.add(output)
        elif passed & _ARITHMETIC:
            found |= between
    constants = {tensor.name for tensor in model.graph.initializer}
    return frozenset(found - constants - {""})


def _reached(start: list[str], nodes: Iterable[tuple[Iterable[str], Iterable[str], str]]) -> set[str]:
    """Follow nodes in order from ``start``; products with weights end the way."""
    reached = set(start)
    for read, given, op_type in nodes:
        if op_type in _ARITHMETIC | _MOVEMENT and reached.intersection(read):
            reached.update(given)
    return reached
