"""Writing by index, with the seven update modes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edgedeploy.targets.coreml.ops.gather import positions
from edgedeploy.targets.coreml.registry import Call, Results, op


def _write(call: Call, data: Tensor, axis: int, indices: Tensor, updates: Tensor, mode: str) -> Tensor:
    """Combine ``updates`` into ``data`` at ``indices`` (same shape) along ``axis``; repeats accumulate."""
    indices = positions(call, indices, data.shape[axis])
    if mode == "update":
        return data.scatter(axis, indices, updates)
    if mode == "add":
        return data.scatter_add(axis, indices, updates)
    if mode == "sub":
        return data.scatter_add(axis, indices, -updates)
    reduce = {"mul": "prod", "div": "prod", "max": "amax", "min": "amin"}.get(mode)
    if reduce is None:
        raise call.wrong(f"scatter mode {mode!r}")
    if mode == "div":
        divisor = torch.ones_like(data).scatter_reduce(axis, indices, updates, "prod")
        return data / divisor if data.is_floating_point() else torch.div(data, divisor, rounding_mode="trunc")
    return data.scatter_reduce(axis, indices, updates, reduce)


@op("scatter")
def scatter(call: Call) -> Results:
    """Whole slices: ``indices`` (C,) along ``axis``."""
    data, updates = call.tensor("data"), call.tensor("updates")
    axis = call.integer("axis", 0) % data.dim()
    indices = call.tensor("indices").reshape([-1 if place == axis else 1 for place in range(data.dim())])
    return _write(call, data, axis, indices.expand_as(updates), updates, call.text("mode", "update"))


@op("scatter_along_axis")
def scatter_along_axis(call: Call) -> Results:
    """Element by element along ``axis``."""
    data, updates = call.tensor("data"), call.tensor("updates")
    axis = call.integer("axis", 0) % data.dim()
    return _write(call, data, axis, call.tensor("indices"), updates, call.text("mode", "add"))


@op("scatter_nd")
def scatter_nd(call: Call) -> Results:
    """Slices of data addressed by the last axis of indices (``tf.scatter_nd``)."""
    data, indices, updates = call.tensor("data"), call.tensor("indices"), call.tensor("updates")
    depth = indices.shape[-1]
    leading = data.shape[:depth]
    flat = torch.zeros(indices.shape[:-1], dtype=torch.int64)
    for column, size in enumerate(leading):
        flat = flat * size + positions(call, indices[..., column], size)
    rows = data.reshape(math.prod(leading), -1)
    values = updates.reshape(flat.numel(), rows.shape[1])
    places = flat.reshape(-1, 1).expand_as(values)
    return _write(call, rows, 0, places, values, call.text("mode", "add")).reshape(data.shape)
