"""MaxPool, AveragePool and their global forms; spatial means and sums."""

from __future__ import annotations

from dataclasses import replace

from edgedeploy.exporters.tflite_micro.layout import UNIT, channels_last
from edgedeploy.exporters.tflite_micro.lowering import Lowering
from edgedeploy.exporters.tflite_micro.ops.windows import VALID, Window, padded, padding_code, window_of
from edgedeploy.exporters.tflite_micro.qdq import Node
from edgedeploy.exporters.tflite_micro.registry import handles


def pool_refusal(node: Node) -> str:
    """A pool runs over one or two spatial axes, undilated, and an average counts what SAME padding counts."""
    if node.input(0).rank not in (3, 4):
        return f"its input has {node.input(0).rank} axes; pools over one or two spatial axes have kernels"
    if any(dilation != 1 for dilation in node.attributes.get("dilations", ())):
        return "dilated pools have no kernel"
    if len(node.outputs) > 1:
        return "indices of the maxima have no kernel"
    window = window_of(node, node.attributes["kernel_shape"])
    if node.op_type == "AveragePool" and not node.attributes.get("count_include_pad", 0) and window.needs_pad:
        return "an average that leaves padding out needs padding equal to SAME; set count_include_pad"
    if (
        node.op_type == "AveragePool"
        and node.attributes.get("count_include_pad", 0)
        and node.attributes.get("ceil_mode", 0)
    ):
        return "an average with both ceil_mode and count_include_pad has no kernel"
    return ""


@handles("MaxPool", "AveragePool", refusal=pool_refusal)
def pool(lower: Lowering, node: Node) -> None:
    """MAX_POOL_2D or AVERAGE_POOL_2D; the kernels keep the input's scale and leave SAME padding out."""
    value = node.input(0)
    layout = channels_last(value.rank)
    window = window_of(node, node.attributes["kernel_shape"])
    source = lower.operand(value, layout)
    maximum = node.op_type == "MaxPool"
    if not maximum and node.attributes.get("count_include_pad", 0):
        window = replace(window, same=False)
    output_padding = VALID if window.needs_pad else padding_code(window)
    source = padded(lower, source, window, lowest=maximum)
    output = lower.define(node.output, layout)
    _emit_pool(lower, maximum, source, output, window, output_padding)


@handles("GlobalMaxPool")
def global_max_pool(lower: Lowering, node: Node) -> None:
    """MAX_POOL_2D with a window of the whole image: it has an int16 kernel, REDUCE_MAX has none."""
    value = node.input(0)
    layout = channels_last(value.rank)
    source = lower.operand(value, layout)
    _, height, width, _ = lower.model.tensors[source].shape
    window = Window((height, width), (1, 1), (1, 1), (0, 0), (0, 0), same=False)
    _emit_pool(lower, True, source, lower.define(node.output, layout), window, VALID)


def _emit_pool(lower: Lowering, maximum: bool, source: int, output: int, window: Window, padding: int) -> None:
    lower.emit(
        "MAX_POOL_2D" if maximum else "AVERAGE_POOL_2D",
        (source,),
        (output,),
        padding=padding,
        strideH=window.strides[0],
        strideW=window.strides[1],
        filterHeight=window.kernel[0],
        filterWidth=window.kernel[1],
        fusedActivationFunction=lower.fused_activation(),
    )


def reduce_refusal(node: Node) -> str:
    """The axes of a reduction are constants."""
    axes = node.optional(1)
    return "" if axes is None or axes.data is not None else "its axes are computed at run time"


@handles("ReduceMean", "ReduceSum", "ReduceMax", "GlobalAveragePool", refusal=reduce_refusal)
def reduce(lower: Lowering, node: Node) -> None:
    """MEAN and SUM requantize; REDUCE_MAX keeps the scale."""
    value = node.input(0)
    layout = lower.layout_of(value)
    if node.op_type == "GlobalAveragePool":
        axes, keep = tuple(range(2, value.rank)), True
    else:
        given = node.optional(1)
        named = node.attributes.get("axes", range(value.rank)) if given is None else node.constant(1).reshape(-1)
        axes, keep = tuple(sorted(int(axis) % value.rank for axis in named)), bool(node.attributes.get("keepdims", 1))
    if UNIT in layout and not keep:
        layout = tuple(axis for axis in layout if axis != UNIT)
    source = lower.operand(value, layout)
    positions = lower.vector(sorted(layout.index(axis) for axis in axes))
    left = [axis for axis in range(value.rank) if axis not in axes]
    result = layout if keep else tuple(left.index(axis) for axis in layout if axis in left)
    builtin = {"ReduceSum": "SUM", "ReduceMax": "REDUCE_MAX"}.get(node.op_type, "MEAN")
    lower.emit(builtin, (source, positions), (lower.define(node.output, result),), keepDims=keep)
