"""A layer as matrix products: which inputs each of its weights multiplies.

A convolution is a product of its weights with patches of its input (im2col, Chellapilla et al. 2006); a Gemm or MatMul
is one as it stands. Long rows are cut into blocks of neighbouring input channels, so that matrices over a row stay
small: weights of different blocks are treated as if their inputs had nothing to do with each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.calibration.quantizer.topology import attribute, integers

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

#: Weights of one output channel in a block, at most.
_LONGEST_ROW = 384
#: Steps through output positions and samples that never fall into the rhythm of an image's rows.
_GOLDEN, _SILVER = 0.6180339887498949, 0.41421356237309515


@dataclass(frozen=True)
class Unfolding:
    """How one layer's weight and input are cut into ``parts`` independent products of rows of the same length.

    Attributes:
        op_type: "Conv", "Gemm" or "MatMul".
        shape: of the weight.
        transposed: a Gemm's weight has its output channels first.
        groups: of a convolution.
        blocks: that each group's input channels are cut into.
        pads, strides, dilations: of a convolution, ONNX's order.
    """

    op_type: str
    shape: tuple[int, ...]
    transposed: bool
    groups: int
    blocks: int
    pads: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()

    @property
    def parts(self) -> int:
        """Number of independent products."""
        return self.groups * self.blocks

    @property
    def row(self) -> int:
        """Weights of one output channel in one part."""
        size = int(np.prod(self.shape))
        return size // (self._outputs * self.blocks)

    @property
    def _outputs(self) -> int:
        return self.shape[0] if self.op_type == "Conv" or self.transposed else self.shape[1]

    def split(self, weight: NDArray[Any]) -> NDArray[Any]:
        """The weight as (parts, output channels of a group, row)."""
        rows = weight if self.op_type == "Conv" or self.transposed else weight.T
        cut = rows.reshape(self.groups, self._outputs // self.groups, self.blocks, self.row)
        return np.swapaxes(cut, 1, 2).reshape(self.parts, -1, self.row)

    def join(self, split: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `split`."""
        cut = split.reshape(self.groups, self.blocks, self._outputs // self.groups, self.row)
        rows = np.swapaxes(cut, 1, 2).reshape(self._outputs, -1)
        if self.op_type == "Conv":
            return rows.reshape(self.shape)
        return np.ascontiguousarray(rows if self.transposed else rows.T)

    def inputs(self, values: NDArray[np.float32], count: int, sample: int) -> NDArray[np.float32]:
        """What the rows multiply at up to ``count`` output positions, shape (positions, parts, row).

        Args:
            values: the layer's input, one sample.
            count: positions, spread evenly; all of them where there are fewer.
            sample: number of the sample: each begins elsewhere.
        """
        if self.op_type != "Conv":
            rows = values.reshape(-1, values.shape[-1])
            return rows[_spread(len(rows), count, sample)].reshape(-1, self.parts, self.row)
        kernel = self.shape[2:]
        axes = len(kernel)
        padding = [(0, 0), (0, 0), *zip(self.pads[:axes], self.pads[axes:], strict=True)]
        padded = np.pad(values, padding)
        reach = [dilation * (taps - 1) for dilation, taps in zip(self.dilations, kernel, strict=True)]
        sizes = [
            max(0, (size - far - 1) // stride + 1)
            for size, far, stride in zip(padded.shape[2:], reach, self.strides, strict=True)
        ]
        outputs = (len(values), *sizes)
        places = np.unravel_index(_spread(int(np.prod(outputs)), count, sample), outputs)
        taps = [
            padded[
                places[0],
                :,
                *(
                    place * stride + offset * dilation
                    for place, stride, offset, dilation in zip(
                        places[1:], self.strides, offsets, self.dilations, strict=True
                    )
                ),
            ]
            for offsets in np.ndindex(*kernel)
        ]
        return np.stack(taps, axis=-1).reshape(-1, self.parts, self.row)


def unfolding(node: onnx.NodeProto, shape: tuple[int, ...]) -> Unfolding | None:
    """How to unfold a node whose weight, its second input, has this shape; ``None`` where it is no plain product."""
    if node.op_type in {"Gemm", "MatMul"}:
        if len(shape) != 2 or attribute(node, "transA", 0):
            return None
        transposed = node.op_type == "Gemm" and bool(attribute(node, "transB", 0))
        inputs = shape[1] if transposed else shape[0]
        return Unfolding(node.op_type, shape, transposed, 1, _blocks(inputs, 1))
    if node.op_type != "Conv" or len(shape) < 3:
        return None
    if any(item.name == "auto_pad" and item.s not in (b"", b"NOTSET", b"VALID") for item in node.attribute):
        return None
    axes = len(shape) - 2
    return Unfolding(
        "Conv",
        shape,
        False,
        int(attribute(node, "group", 1)),
        _blocks(shape[1], int(np.prod(shape[2:]))),
        tuple(integers(node, "pads", [0] * (2 * axes))),
        tuple(integers(node, "strides", [1] * axes)),
        tuple(integers(node, "dilations", [1] * axes)),
    )


def _blocks(channels: int, taps: int) -> int:
    """The fewest equal blocks of channels whose rows are short enough."""
    return (
        next(
            count
            for count in range(1, channels + 1)
            if not channels % count and (channels // count) * taps <= _LONGEST_ROW
        )
        if taps <= _LONGEST_ROW
        else channels
    )


def _spread(total: int, count: int, sample: int) -> NDArray[np.int64]:
    """``count`` of ``total`` positions, ascending, that no regular pattern can hide from (a Kronecker sequence)."""
    if total <= count:
        return np.arange(total)
    places = (sample * _SILVER + np.arange(count) * _GOLDEN) % 1.0
    return np.unique((places * total).astype(np.int64))
