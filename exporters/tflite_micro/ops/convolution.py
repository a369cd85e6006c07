"""Conv: CONV_2D and DEPTHWISE_CONV_2D, 1-D signals and groups included."""

from __future__ import annotations

from edgedeploy.exporters.tflite_micro.layout import UNIT, channels_last
from edgedeploy.exporters.tflite_micro.lowering import Lowering
from edgedeploy.exporters.tflite_micro.ops.weights import bias_tensor, weight_refusal, weights_of
from edgedeploy.exporters.tflite_micro.ops.windows import padded, padding_code, window_of
from edgedeploy.exporters.tflite_micro.qdq import Node
from edgedeploy.exporters.tflite_micro.registry import handles


def conv_refusal(node: Node) -> str:
    """A convolution has constant weights and one or two spatial axes."""
    if node.input(0).rank not in (3, 4):
        return f"its input has {node.input(0).rank} axes; convolutions over one or two spatial axes have kernels"
    return weight_refusal(node, 1)


@handles("Conv", refusal=conv_refusal)
def convolution(lower: Lowering, node: Node) -> None:
    """Weights OIHW become OHWI (1HWO for depthwise); padding that is not SAME becomes a PAD."""
    value, weights = node.input(0), weights_of(node, 1, axis=0)
    layout = channels_last(value.rank)
    window = window_of(node, weights.shape[2:])
    source = padded(lower, lower.operand(value, layout), window)
    group = int(node.attributes.get("group", 1))
    depthwise = group > 1 and weights.shape[1] == 1 and group == value.shape[1]
    order = (1, *range(2, weights.rank), 0) if depthwise else (0, *range(2, weights.rank), 1)
    if weights.rank == 3:
        order = (order[0], UNIT, *order[1:])
    kernel = lower.operand(weights, order)
    bias = bias_tensor(lower, node, 2, value, weights)
    output = lower.define(node.output, layout)
    options = {
        "padding": padding_code(window),
        "strideH": window.strides[0],
        "strideW": window.strides[1],
        "dilationHFactor": window.dilations[0],
        "dilationWFactor": window.dilations[1],
        "fusedActivationFunction": lower.fused_activation(),
    }
    if depthwise:
        options["depthMultiplier"] = weights.shape[0] // group
    lower.emit("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", (source, kernel, bias), (output,), **options)
