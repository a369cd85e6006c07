"""Concat, Split, Slice, Pad, Gather: parts of tensors put together and taken apart."""

from __future__ import annotations

import numpy as np

from edgedeploy.exporters.tflite_micro.layout import UNIT, Layout, identity, stored_shape
from edgedeploy.exporters.tflite_micro.lowering import Lowering
from edgedeploy.exporters.tflite_micro.pixel_shuffle import dcr_order
from edgedeploy.exporters.tflite_micro.qdq import Node
from edgedeploy.exporters.tflite_micro.registry import handles


@handles("Concat")
def concat(lower: Lowering, node: Node) -> None:
    """All operands in the layout of the first one computed at run time."""
    values = [node.input(index) for index in range(len(node.inputs))]
    layout = next((lower.layout_of(value) for value in values if value.data is None), identity(node.output.rank))
    axis = layout.index(int(node.attributes["axis"]) % node.output.rank)
    operands = [lower.operand(value, layout) for value in values]
    lower.emit("CONCATENATION", operands, (lower.define(node.output, layout),), axis=axis)


@handles("Split")
def split(lower: Lowering, node: Node) -> None:
    """SPLIT for equal parts, SPLIT_V for others."""
    value = node.input(0)
    layout = lower.layout_of(value)
    axis = int(node.attributes.get("axis", 0)) % value.rank
    source = lower.operand(value)
    sizes = [output.shape[axis] for output in node.outputs]
    outputs = [lower.define(output, layout) for output in node.outputs]
    place = lower.constant(np.asarray(layout.index(axis), np.int32))
    if len(set(sizes)) == 1:
        lower.emit("SPLIT", (place, source), outputs, numSplits=len(sizes))
    else:
        lower.emit("SPLIT_V", (source, lower.vector(sizes), place), outputs, numSplits=len(sizes))


def slice_refusal(node: Node) -> str:
    """Constant limits, steps of 1 or more."""
    limits = node.inputs[1:]
    if any(value is not None and value.data is None for value in limits):
        return "its limits are computed at run time"
    if len(limits) > 3 and node.optional(4) is not None:
        steps = node.constant(4)
        if steps.min() < 1:
            return "steps below 1 have no kernel"
        if steps.max() > 1 and node.input(0).rank > 4:
            return "a strided slice of more than four axes has no kernel"
    return ""


@handles("Slice", refusal=slice_refusal)
def slice_(lower: Lowering, node: Node) -> None:
    """SLICE, or STRIDED_SLICE for steps above 1."""
    value = node.input(0)
    starts, ends = node.constant(1).reshape(-1), node.constant(2).reshape(-1)
    axes = node.constant(3).reshape(-1) if node.optional(3) is not None else np.arange(len(starts))
    steps = node.constant(4).reshape(-1) if node.optional(4) is not None else np.ones(len(starts), np.int64)
    parts = {axis: slice(0, size, 1) for axis, size in enumerate(value.shape)}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = value.shape[int(axis)]
        parts[int(axis) % value.rank] = slice(*slice(int(start), int(end), int(step)).indices(size))
    layout = lower.layout_of(value)
    source = lower.operand(value)
    ordered = [slice(0, 1, 1) if axis == UNIT else parts[axis] for axis in layout]
    begin = lower.vector([part.start for part in ordered])
    output = lower.define(node.output, layout)
    if all(part.step == 1 for part in ordered):
        size_vector = lower.vector(stored_shape(node.output.shape, layout))
        lower.emit("SLICE", (source, begin, size_vector), (output,))
    else:
        end_vector, strides = lower.vector([p.stop for p in ordered]), lower.vector([p.step for p in ordered])
        lower.emit("STRIDED_SLICE", (source, begin, end_vector, strides), (output,))


def pad_refusal(node: Node) -> str:
    """Constant, non-negative paddings; constant or mirrored values."""
    pads = node.optional(1)
    if pads is None or pads.data is None:
        return "its paddings are computed at run time"
    if pads.data.min() < 0:
        return "negative paddings have no kernel; use a Slice"
    mode = node.attributes.get("mode", "constant")
    if mode not in ("constant", "reflect"):
        return f"mode {mode!r} has no kernel; 'constant' and 'reflect' have"
    value = node.optional(2)
    return "its value is computed at run time" if value is not None and value.data is None else ""


@handles("Pad", refusal=pad_refusal)
def pad(lower: Lowering, node: Node) -> None:
    """PAD writes real 0, PADV2 another value, MIRROR_PAD reflects."""
    value = node.input(0)
    pads = node.constant(1).reshape(2, -1)
    given = node.optional(3)
    axes = [int(axis) % value.rank for axis in given.data.reshape(-1)] if given and given.data is not None else None
    amounts = dict.fromkeys(range(value.rank), (0, 0))
    for index, axis in enumerate(axes if axes is not None else range(value.rank)):
        amounts[axis] = (int(pads[0, index]), int(pads[1, index]))
    layout = lower.layout_of(value)
    source = lower.operand(value)
    rows = [(0, 0) if axis == UNIT else amounts[axis] for axis in layout]
    paddings = lower.constant(np.asarray(rows, np.int32))
    output = lower.define(node.output, layout)
    fill = node.optional(2)
    if node.attributes.get("mode", "constant") == "reflect":
        lower.emit("MIRROR_PAD", (source, paddings), (output,), mode=0)
    elif fill is None or not np.any(fill.real):
        lower.emit("PAD", (source, paddings), (output,))
    else:
        tensor = lower.model.tensors[source]
        assert tensor.quantization is not None
        info = np.iinfo(tensor.dtype)
        code = round(float(fill.real.reshape(-1)[0]) / float(tensor.quantization.scale[0]))
        code = int(np.clip(code + int(tensor.quantization.zero_point[0]), info.min, info.max))
        constant = lower.constant(np.asarray([code], tensor.dtype), tensor.quantization)
        lower.emit("PADV2", (source, paddings, constant), (output,))


@handles("Gather")
def gather(lower: Lowering, node: Node) -> None:
    """GATHER with int32 indices; a constant single index becomes a SLICE."""
    value, indices = node.input(0), node.input(1)
    axis = int(node.attributes.get("axis", 0)) % value.rank
    source = lower.operand(value, identity(value.rank))
    if indices.data is not None and indices.data.size == 1:
        begin = [0] * value.rank
        begin[axis] = int(indices.data.reshape(-1)[0]) % value.shape[axis]
        size = [1 if other == axis else length for other, length in enumerate(value.shape)]
        part = lower.temporary(source, "row", shape=tuple(size))
        lower.emit("SLICE", (source, lower.vector(begin), lower.vector(size)), (part,))
        lower.reshape(part, node.output.shape, lower.define(node.output, identity(node.output.rank)))
        return
    if indices.data is not None:
        place = lower.constant(indices.data.astype(np.int32) % value.shape[axis])
    else:
        place = lower.operand(indices, identity(indices.rank))
    output = lower.define(node.output, identity(node.output.rank))
    lower.emit("GATHER", (source, place), (output,), axis=axis)


@handles("DepthToSpace", "SpaceToDepth")
def depth_space(lower: Lowering, node: Node) -> None:
    """DEPTH_TO_SPACE and SPACE_TO_DEPTH over NHWC; the kernels know DCR, so CRD gathers its channels first."""
    layout: Layout = (0, 2, 3, 1)
    source = lower.operand(node.input(0), layout)
    block = int(node.attributes["blocksize"])
    if node.op_type == "SpaceToDepth":
        lower.emit("SPACE_TO_DEPTH", (source,), (lower.define(node.output, layout),), blockSize=block)
        return
    if node.attributes.get("mode", "DCR") == "CRD":
        order = lower.constant(dcr_order(node.input(0).shape[1], block).astype(np.int32))
        ordered = lower.temporary(source, "ordered")
        lower.emit("GATHER", (source, order), (ordered,), axis=3)
        source = ordered
    lower.emit("DEPTH_TO_SPACE", (source,), (lower.define(node.output, layout),), blockSize=block)
