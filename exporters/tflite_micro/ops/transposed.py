"""ConvTranspose: TRANSPOSE_CONV, with a SLICE where its padding is not the kernel's, and groups one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgedeploy.exporters.tflite_micro.ir import Affine
from edgedeploy.exporters.tflite_micro.layout import UNIT, channels_last
from edgedeploy.exporters.tflite_micro.lowering import Lowering
from edgedeploy.exporters.tflite_micro.ops.weights import bias_tensor, weight_refusal, weights_of
from edgedeploy.exporters.tflite_micro.ops.windows import SAME, VALID
from edgedeploy.exporters.tflite_micro.qdq import Node, Value
from edgedeploy.exporters.tflite_micro.registry import handles


def transposed_refusal(node: Node) -> str:
    """No dilation; output padding no larger than the padding it undoes."""
    if any(dilation != 1 for dilation in node.attributes.get("dilations", ())):
        return "a dilated transposed convolution has no kernel"
    if node.input(0).rank not in (3, 4):
        return "transposed convolutions over one or two spatial axes have kernels"
    if int(node.attributes.get("group", 1)) > 1 and node.input(0).rank == 3:
        return "grouped transposed convolutions are taken over two spatial axes"
    _, begin, full = _geometry(node)
    if any(b + out > size for b, out, size in zip(begin, node.output.shape[2:], full, strict=True)):
        return "its output_padding is larger than its padding"
    return weight_refusal(node, 1)


@handles("ConvTranspose", refusal=transposed_refusal)
def transposed_convolution(lower: Lowering, node: Node) -> None:
    """Weights IOHW become OHWI."""
    value, weights = node.input(0), weights_of(node, 1, axis=1)
    group = int(node.attributes.get("group", 1))
    layout = channels_last(value.rank)
    source = lower.operand(value, layout)
    output = lower.define(node.output, layout)
    bias = bias_tensor(lower, node, 2, value, weights)
    if group == 1:
        order = (1, *range(2, weights.rank), 0) if weights.rank == 4 else (1, UNIT, 2, 0)
        _one(lower, node, source, lower.operand(weights, order), bias, output)
    else:
        _grouped(lower, node, source, weights, bias, output, group)


def _grouped(lower: Lowering, node: Node, source: int, weights: Value, bias: int, output: int, group: int) -> None:
    """SPLIT the channels, convolve each group, CONCATENATION. Weights: (inputs, outputs of one group, H, W)."""
    batch, height, width, channels = lower.model.tensors[source].shape
    out_shape = lower.model.tensors[output].shape
    each = out_shape[3] // group
    shape = (batch, height, width, channels // group)
    pieces = [lower.temporary(source, f"group{index}", shape=shape) for index in range(group)]
    lower.emit("SPLIT", (lower.constant(np.asarray(3, np.int32)), source), pieces, numSplits=group)
    assert weights.data is not None
    codes = lower.model.tensors[bias]
    assert codes.data is not None
    assert codes.quantization is not None
    affine = codes.quantization
    activation = lower.fused_activation()
    results = []
    for index, piece in enumerate(pieces):
        part = weights.data[index * channels // group : (index + 1) * channels // group].transpose(1, 2, 3, 0)
        result = lower.temporary(output, f"result{index}", shape=(*out_shape[:3], each))
        mine = slice(index * each, (index + 1) * each)
        some = lower.constant(codes.data[mine], Affine.of(affine.scale[mine]) if affine.per_channel else affine)
        assert weights.quantization is not None
        _one(lower, node, piece, lower.constant(part, replace(weights.quantization, axis=0)), some, result, activation)
        results.append(result)
    lower.emit("CONCATENATION", results, (output,), axis=3)


def _one(
    lower: Lowering, node: Node, source: int, kernel: int, bias: int, output: int, activation: int | None = None
) -> None:
    strides, begin, full = _geometry(node)
    wanted = lower.model.tensors[output].shape
    spatial = node.output.shape[2:]
    same = all(
        b == (size - out) // 2 and -(-out // stride) == given
        for b, size, out, stride, given in zip(begin, full, spatial, strides, node.input(0).shape[2:], strict=True)
    )
    exact = same or tuple(full) == tuple(spatial)
    pad = (0,) * (2 - len(full))
    whole = wanted if exact else (wanted[0], *((1,) * len(pad)), *full, wanted[3])
    result = output if exact else lower.temporary(output, "whole", shape=whole)
    step = ((1,) * (2 - len(strides))) + strides
    lower.emit(
        "TRANSPOSE_CONV",
        (lower.vector(whole), kernel, source, bias),
        (result,),
        padding=VALID if tuple(full) == tuple(spatial) or not exact else SAME,
        strideH=step[0],
        strideW=step[1],
        fusedActivationFunction=lower.fused_activation() if activation is None else activation,
    )
    if not exact:
        start = (0, *pad, *begin, 0)
        lower.emit("SLICE", (result, lower.vector(start), lower.vector(wanted)), (output,))


def _geometry(node: Node) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Strides, cropping at the start, and the size before cropping, by spatial axis."""
    kernel = node.input(1).shape[2:]
    sizes = node.input(0).shape[2:]
    strides = tuple(node.attributes.get("strides", (1,) * len(kernel)))
    begin = tuple(node.attributes.get("pads", (0,) * (2 * len(kernel))))[: len(kernel)]
    full = tuple((size - 1) * stride + span for size, stride, span in zip(sizes, strides, kernel, strict=True))
    return strides, begin, full
