"""Relu, Clip, LeakyRelu, PRelu, Sigmoid, Tanh, HardSwish, Softmax: activations with a kernel of their own."""

from __future__ import annotations

import math

from edgedeploy.exporters.tflite_micro.layout import UNIT, Layout
from edgedeploy.exporters.tflite_micro.lowering import Lowering
from edgedeploy.exporters.tflite_micro.ops.elementwise import quantized
from edgedeploy.exporters.tflite_micro.qdq import Clamp, Node, clamp_of
from edgedeploy.exporters.tflite_micro.registry import handles


@handles("Relu", "Sigmoid", "Tanh", "HardSwish", "Abs")
def unary(lower: Lowering, node: Node) -> None:
    """One operator that takes any layout."""
    builtin = {"Relu": "RELU", "Sigmoid": "LOGISTIC", "Tanh": "TANH", "HardSwish": "HARD_SWISH", "Abs": "ABS"}
    source, output = same_layout(lower, node)
    lower.emit(builtin[node.op_type], (source,), (output,))


@handles("LeakyRelu")
def leaky_relu(lower: Lowering, node: Node) -> None:
    """LEAKY_RELU requantizes."""
    source, output = same_layout(lower, node)
    lower.emit("LEAKY_RELU", (source,), (output,), alpha=float(node.attributes.get("alpha", 0.01)))


@handles("Clip")
def clip(lower: Lowering, node: Node) -> None:
    """RELU6 where it is one, else MAXIMUM and MINIMUM; nothing where the codes cannot leave the range anyway."""
    value = node.input(0)
    limits = clamp_of(node)
    if limits == Clamp(0, 6):
        source, output = same_layout(lower, node)
        lower.emit("RELU6", (source,), (output,))
        return
    lower.alias(node.output, lower.operand(value), lower.layout_of(value))
    if not (math.isinf(limits.low) and math.isinf(limits.high)):
        lower.clamp(node.output, limits)


@handles("PRelu", refusal=lambda node: "" if node.input(1).data is not None else "its slope is computed at run time")
def prelu(lower: Lowering, node: Node) -> None:
    """PRELU with a slope that broadcasts over the stored axes."""
    value, slope = node.input(0), quantized(node.input(1), node.output)
    layout = lower.layout_of(value)
    missing = value.rank - slope.rank
    order = tuple(UNIT if axis in (UNIT, *range(missing)) else axis - missing for axis in layout)
    source = lower.operand(value)
    index = lower.operand(slope, order)
    lower.emit("PRELU", (source, index), (lower.define(node.output, layout),))


@handles("Softmax", "LogSoftmax")
def softmax(lower: Lowering, node: Node) -> None:
    """The kernel works along the last stored axis."""
    value = node.input(0)
    axis = int(node.attributes.get("axis", -1)) % value.rank
    layout = axis_last(lower.layout_of(value), axis)
    source = lower.operand(value, layout)
    output = lower.define(node.output, layout)
    if node.op_type == "Softmax":
        lower.emit("SOFTMAX", (source,), (output,), beta=1.0)
    else:
        lower.emit("LOG_SOFTMAX", (source,), (output,))


@handles("Requantize")
def requantize(lower: Lowering, node: Node) -> None:
    """QUANTIZE from one scale or width to another."""
    source, output = same_layout(lower, node)
    lower.emit("QUANTIZE", (source,), (output,))


def axis_last(layout: Layout, axis: int) -> Layout:
    """The layout with one axis stored last; itself where it is."""
    return layout if layout[-1] == axis else (*(other for other in layout if other != axis), axis)


def same_layout(lower: Lowering, node: Node) -> tuple[int, int]:
    """Input and output tensors of an operator that works element by element, scrambled or not."""
    value = node.input(0)
    source = lower.operand(value)
    return source, lower.define(node.output, lower.layout_of(value), scramble=lower.scramble_of(value))
