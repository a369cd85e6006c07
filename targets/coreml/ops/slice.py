"""Slices read and written, and reversals."""

from __future__ import annotations

import torch
from torch import Tensor

from edgedeploy.targets.coreml.registry import Call, Results, op


def _indices(call: Call, x: Tensor) -> tuple[list[Tensor], list[int]]:
    """Positions along every axis, and the axes that ``squeeze_mask`` drops."""
    rank = x.dim()
    begin, end = call.integers("begin"), call.integers("end")
    stride = call.integers("stride", [1] * rank)
    begin_mask, end_mask = call.flags("begin_mask", rank), call.flags("end_mask", rank)
    dropped = [axis for axis, drop in enumerate(call.flags("squeeze_mask", rank)) if drop]
    places = []
    for axis, size in enumerate(x.shape):
        if axis in dropped:
            place = begin[axis] % size if -size <= begin[axis] < size else None
            if place is None:
                raise call.wrong(f"index {begin[axis]} outside an axis of {size}")
            places.append(torch.tensor([place]))
            continue
        bounds = slice(None if begin_mask[axis] else begin[axis], None if end_mask[axis] else end[axis], stride[axis])
        places.append(torch.tensor(list(range(size))[bounds], dtype=torch.int64))
    return places, dropped


@op("slice_by_index")
def slice_by_index(call: Call) -> Results:
    """Numpy slicing: begin, end, stride and the three masks."""
    x = call.raw("x")
    places, dropped = _indices(call, x)
    for axis, index in enumerate(places):
        if len(index) == x.shape[axis] and (len(index) < 2 or int(index[0]) == 0):
            continue
        if len(index) and bool((index.diff() == 1).all()):
            x = x.narrow(axis, int(index[0]), len(index))
        else:
            x = torch.index_select(x, axis, index)
    return x.squeeze(dropped) if dropped else x


@op("slice_by_size")
def slice_by_size(call: Call) -> Results:
    """``size`` elements from ``begin`` along each axis; -1 means all that remain."""
    x = call.raw("x")
    for axis, (begin, size) in enumerate(zip(call.integers("begin"), call.integers("size"), strict=True)):
        start = begin + x.shape[axis] if begin < 0 else begin
        x = x.narrow(axis, start, x.shape[axis] - start if size == -1 else size)
    return x


@op("slice_update")
def slice_update(call: Call) -> Results:
    """A copy of x with a slice replaced."""
    x, update = call.raw("x").clone(), call.raw("update")
    places, dropped = _indices(call, x)
    shape = [len(index) for index in places]
    if [size for axis, size in enumerate(shape) if axis not in dropped] != list(update.shape):
        raise call.wrong(f"a slice of {shape} cannot take an update of {list(update.shape)}")
    x[torch.meshgrid(*places, indexing="ij")] = update.reshape(shape).to(x.dtype)
    return x


@op("reverse")
def reverse(call: Call) -> Results:
    """Reverse the given axes, or all."""
    x = call.raw("x")
    return x.flip(call.integers("axes", range(x.dim())))


@op("reverse_sequence")
def reverse_sequence(call: Call) -> Results:
    """Reverse the first ``lengths[i]`` elements of each sequence (``tf.reverse_sequence``)."""
    x = call.raw("x").clone()
    sequence, batch = call.integer("seq_axis", 0), call.integer("batch_axis", 0)
    for row, length in enumerate(call.integers("lengths")):
        item = x.select(batch, row).unsqueeze(batch)
        part = item.narrow(sequence, 0, length)
        part.copy_(part.flip(sequence))
    return x
