"""Add, Sub, Mul, Max, Min, Div by a constant and squares: broadcasting operators of two operands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgedeploy.exporters.tflite_micro.ir import Affine
from edgedeploy.exporters.tflite_micro.layout import UNIT, Layout, identity
from edgedeploy.exporters.tflite_micro.lowering import Lowering
from edgedeploy.exporters.tflite_micro.qdq import Node, Value
from edgedeploy.exporters.tflite_micro.registry import handles

BUILTINS = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Max": "MAXIMUM", "Min": "MINIMUM", "Div": "MUL", "Pow": "MUL"}

LARGEST_BROADCAST_RANK = 4


def binary_refusal(node: Node) -> str:
    """Two operands, four axes where they differ, and a divisor or exponent that a multiplication can stand for."""
    if len(node.inputs) != 2:
        return f"it has {len(node.inputs)} operands and the kernels take two"
    left, right = node.input(0), node.input(1)
    if max(left.rank, right.rank) > LARGEST_BROADCAST_RANK and left.shape != right.shape:
        return f"broadcasting over {max(left.rank, right.rank)} axes has no kernel"
    if node.op_type == "Div":
        if right.data is None:
            return "the kernel is wrong by up to 132 steps near a numerator of zero; divide by a constant"
        if np.any(right.data == 0) and right.quantization is None:
            return "its divisor is zero"
    if node.op_type == "Pow" and (right.data is None or not np.allclose(right.real, 2, atol=1e-3)):
        return "only squares have a kernel"
    return ""


@handles("Add", "Sub", "Mul", "Max", "Min", "Div", "Pow", refusal=binary_refusal)
def binary(lower: Lowering, node: Node) -> None:
    """Both operands in the layout of the larger one; a constant operand is quantized if it is not yet."""
    left, right = node.input(0), node.input(1)
    if node.op_type == "Div":
        right = quantized(replace(right, quantization=None, data=1 / right.real, dtype="float32"), node.output)
    if node.op_type == "Pow":
        right = left
    left, right = quantized(left, node.output), quantized(right, node.output)
    rank = node.output.rank
    layout = broadcast_layout(lower, node, rank)
    operands = tuple(aligned(lower, value, layout, rank) for value in (left, right))
    output = lower.define(node.output, layout)
    options = {}
    if BUILTINS[node.op_type] in ("ADD", "SUB", "MUL"):
        options["fusedActivationFunction"] = lower.fused_activation()
    lower.emit(BUILTINS[node.op_type], operands, (output,), **options)


def broadcast_layout(lower: Lowering, node: Node, rank: int) -> Layout:
    """The layout of the largest run-time operand that has all axes of the result."""
    full = [value for value in node.inputs if value is not None and value.data is None and value.rank == rank]
    if not full:
        return identity(rank)
    return lower.layout_of(max(full, key=lambda value: int(np.prod(value.shape))))


def aligned(lower: Lowering, value: Value, layout: Layout, rank: int) -> int:
    """The operand in a layout over ``rank`` axes, its own axes being the last of them."""
    missing = rank - value.rank
    if value.data is not None and value.data.size == 1:
        return lower.constant(value.data.reshape(1), value.quantization)
    order = tuple(UNIT if axis in (UNIT, *range(missing)) else axis - missing for axis in layout)
    return lower.operand(value, order)


def quantized(value: Value, like: Value) -> Value:
    """A float constant in codes of the width of ``like``; other values as they are."""
    if value.data is None or value.quantization is not None or value.data.dtype.kind != "f":
        return value
    dtype = like.dtype
    info = np.iinfo(dtype)
    real = value.data.astype(np.float64)
    if real.size == 1 or dtype == "int16":
        limit = info.max
        scale = np.float32(max(float(np.abs(real).max()), 1e-30) / limit)
        return _codes(value, real, Affine.of(scale), dtype)
    low, high = min(float(real.min()), 0.0), max(float(real.max()), 0.0)
    scale = np.float32(max(high - low, 1e-30) / (info.max - info.min))
    return _codes(value, real, Affine.of(scale, round(info.min - low / float(scale))), dtype)


def _codes(value: Value, real: np.ndarray, affine: Affine, dtype: str) -> Value:
    info = np.iinfo(dtype)
    codes = np.clip(np.rint(real / float(affine.scale[0])) + affine.zero_point[0], info.min, info.max)
    return replace(value, dtype=dtype, quantization=affine, data=codes.astype(dtype))
