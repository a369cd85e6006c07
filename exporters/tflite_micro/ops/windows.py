"""Sliding windows: strides, dilations and padding of convolutions and pools in the kernels' terms.

The kernels know two paddings: VALID (none) and SAME, which puts ``total // 2`` before and the rest after. Torch's
symmetric padding equals SAME for stride 1 and odd kernels only; for stride 2 it needs a PAD.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgedeploy.errors import InputError
from edgedeploy.exporters.tflite_micro.lowering import Lowering
from edgedeploy.exporters.tflite_micro.qdq import Node

SAME, VALID = 0, 1


@dataclass(frozen=True)
class Window:
    """A 2-D window; ``begin`` and ``end`` hold the padding that is really read, by axis (height, width)."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    same: bool

    @property
    def needs_pad(self) -> bool:
        """True where neither SAME nor VALID describes the padding."""
        return not self.same and any((*self.begin, *self.end))


def padding_code(window: Window) -> int:
    """The schema's padding value."""
    return SAME if window.same else VALID


def window_of(node: Node, kernel: Sequence[int]) -> Window:
    """Read a Conv or pool node (NC + one or two spatial axes); a 1-D window gets height 1."""
    inputs, outputs = node.input(0).shape[2:], node.output.shape[2:]
    count = len(kernel)
    strides = tuple(node.attributes.get("strides", (1,) * count))
    dilations = tuple(node.attributes.get("dilations", (1,) * count))
    spans = tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True))
    begin = _begin(node, inputs, outputs, strides, spans)
    end = tuple(
        max((outputs[axis] - 1) * strides[axis] + spans[axis] - begin[axis] - inputs[axis], 0) for axis in range(count)
    )
    same = any((*begin, *end)) and all(
        _is_same(inputs[axis], outputs[axis], strides[axis], begin[axis], end[axis], spans[axis])
        for axis in range(count)
    )
    ones, zeros = (1,) * (2 - count), (0,) * (2 - count)
    return Window(ones + tuple(kernel), ones + strides, ones + dilations, zeros + tuple(begin), zeros + end, same)


def _begin(
    node: Node, inputs: Sequence[int], outputs: Sequence[int], strides: Sequence[int], spans: Sequence[int]
) -> tuple[int, ...]:
    mode = node.attributes.get("auto_pad", "NOTSET")
    count = len(strides)
    if mode == "NOTSET":
        pads = tuple(node.attributes.get("pads", (0,) * (2 * count)))
        if min(pads, default=0) < 0:
            raise InputError(f"{node.op_type} at {node.name!r} has negative padding {pads}.")
        return pads[:count]
    if mode == "VALID":
        return (0,) * count
    totals = [
        max((out - 1) * stride + span - size, 0)
        for size, out, stride, span in zip(inputs, outputs, strides, spans, strict=True)
    ]
    return tuple((total + (mode == "SAME_LOWER")) // 2 for total in totals)


def _is_same(size: int, out: int, stride: int, begin: int, end: int, span: int) -> bool:
    total = max((out - 1) * stride + span - size, 0)
    return out == -(-size // stride) and begin == total // 2 and end == total - total // 2


def padded(lower: Lowering, source: int, window: Window, *, lowest: bool = False) -> int:
    """The NHWC input with the PAD that the two padding modes cannot express; itself where they can.

    ``lowest`` pads with the lowest code (max pooling), else with real 0.
    """
    if not window.needs_pad:
        return source
    tensor = lower.model.tensors[source]
    (top, left), (bottom, right) = window.begin, window.end
    batch, height, width, channels = tensor.shape
    output = lower.temporary(source, "padded", shape=(batch, height + top + bottom, width + left + right, channels))
    paddings = lower.constant(np.asarray([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32))
    bottom_code = np.iinfo(tensor.dtype).min
    assert tensor.quantization is not None
    if lowest and tensor.quantization.zero_point[0] != bottom_code:
        value = lower.constant(np.asarray([bottom_code], tensor.dtype), tensor.quantization)
        return lower.emit("PADV2", (source, paddings, value), (output,))
    return lower.emit("PAD", (source, paddings), (output,))
