"""Reading by index; negative indices count from the end, indices outside are an error."""

from __future__ import annotations

import torch
from torch import Tensor

from edgedeploy.targets.coreml.registry import Call, Results, op


def positions(call: Call, indices: Tensor, size: int) -> Tensor:
    """Non-negative int64 indices into an axis of ``size``."""
    indices = indices.long()
    if indices.numel() and (int(indices.min()) < -size or int(indices.max()) >= size):
        raise call.wrong(f"index {int(indices.min())}..{int(indices.max())} outside an axis of {size}")
    return torch.where(indices < 0, indices + size, indices)


@op("gather")
def gather(call: Call) -> Results:
    """Slices of x along ``axis``; the first ``batch_dims`` axes of x and indices run together."""
    x, axis, batch = call.raw("x"), call.integer("axis", 0), call.integer("batch_dims", 0)
    axis %= x.dim()
    indices = positions(call, call.tensor("indices"), x.shape[axis])
    if batch == 0:
        shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
        return torch.index_select(x, axis, indices.reshape(-1)).reshape(shape)
    leading = x.shape[:batch]
    rows = zip(x.reshape(-1, *x.shape[batch:]), indices.reshape(-1, *indices.shape[batch:]), strict=True)
    inner = axis - batch
    picked = [
        torch.index_select(row, inner, index.reshape(-1)).reshape(
            (*row.shape[:inner], *index.shape, *row.shape[inner + 1 :])
        )
        for row, index in rows
    ]
    return torch.stack(picked).reshape(*leading, *picked[0].shape)


@op("gather_along_axis")
def gather_along_axis(call: Call) -> Results:
    """Element by element along ``axis`` (``numpy.take_along_axis``)."""
    x, axis = call.raw("x"), call.integer("axis", 0)
    return torch.gather(x, axis, positions(call, call.tensor("indices"), x.shape[axis]))


@op("gather_nd")
def gather_nd(call: Call) -> Results:
    """Slices of x addressed by the last axis of indices (``tf.gather_nd``)."""
    x, indices, batch = call.raw("x"), call.tensor("indices"), call.integer("batch_dims", 0)
    depth = indices.shape[-1]
    columns = [
        positions(call, indices[..., column], size) for column, size in enumerate(x.shape[batch : batch + depth])
    ]
    grids = torch.meshgrid(*(torch.arange(size) for size in x.shape[:batch]), indexing="ij") if batch else ()
    spread = [grid.reshape(*grid.shape, *[1] * (indices.dim() - 1 - batch)) for grid in grids]
    return x[(*spread, *columns)]
