"""Multiply-accumulates of one op, from shapes alone; the formulas are those of the ONNX operator definitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

Shape = tuple[int, ...]
Attributes = Mapping[str, int | float | str | tuple[int, ...]]

#: Gates of the recurrent ops: the width of their weight matrices in hidden sizes.
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def macs(op_type: str, inputs: Sequence[Shape | None], outputs: Sequence[Shape | None], attributes: Attributes) -> int:
    """Multiply-accumulates of one inference; 0 for data movement, element-wise ops and reductions.

    Args:
        op_type: the ONNX op.
        inputs: the shape of every operand in the op's order, weights included; ``None`` for one that is absent.
        outputs: likewise.
        attributes: the op's attributes ("group", "transA", "direction", "equation" ...).
    """
    count = _COUNTERS.get(op_type)
    if count is None or not inputs or inputs[0] is None:
        return 0
    return count(op_type, inputs, outputs, attributes)


def _conv(op_type: str, inputs: Sequence[Shape | None], outputs: Sequence[Shape | None], attributes: Attributes) -> int:
    weight, output = inputs[1], outputs[0]
    return prod(output) * prod(weight[1:]) if weight and output else 0


def _conv_transpose(
    op_type: str, inputs: Sequence[Shape | None], outputs: Sequence[Shape | None], attributes: Attributes
) -> int:
    data, weight = inputs[0], inputs[1]
    return prod(data) * prod(weight[1:]) if weight and data else 0


def _gemm(op_type: str, inputs: Sequence[Shape | None], outputs: Sequence[Shape | None], attributes: Attributes) -> int:
    data, output = inputs[0], outputs[0]
    if not data or not output:
        return 0
    return prod(output) * data[0 if attributes.get("transA") else 1]


def _matmul(
    op_type: str, inputs: Sequence[Shape | None], outputs: Sequence[Shape | None], attributes: Attributes
) -> int:
    data, output = inputs[0], outputs[0]
    return prod(output) * data[-1] if data and output is not None else 0


def _recurrent(
    op_type: str, inputs: Sequence[Shape | None], outputs: Sequence[Shape | None], attributes: Attributes
) -> int:
    data, weight, recurrence = inputs[:3]
    if not data or not weight or not recurrence:
        return 0
    steps = data[0] * data[1]  # sequence and batch, in either layout
    directions, width, features = weight
    hidden = recurrence[-1]
    if width != _GATES[op_type] * hidden:
        return 0
    return steps * directions * width * (features + hidden)


def _einsum(
    op_type: str, inputs: Sequence[Shape | None], outputs: Sequence[Shape | None], attributes: Attributes
) -> int:
    equation = str(attributes.get("equation", "")).replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    if len(terms) < 2 or "." in equation:
        return 0
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, inputs, strict=False):
        for letter, size in zip(term, shape or (), strict=False):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return prod(sizes.values()) * (len(terms) - 1)


_COUNTERS: dict[str, Callable[[str, Sequence[Shape | None], Sequence[Shape | None], Attributes], int]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Einsum": _einsum,
}
