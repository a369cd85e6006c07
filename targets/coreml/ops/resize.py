"""Resizing of the last axes by linear or nearest-neighbour interpolation.

Grid points per sampling mode: Apple's op reference, ``resize_bilinear``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgedeploy.targets.coreml.registry import Call, Results, op


def grid(call: Call, size: int | float, count: int, mode: str) -> Tensor:
    """float64 positions in [0, size - 1] of ``count`` samples of an axis of ``size``."""
    steps = torch.arange(count, dtype=torch.float64)
    last = float(size - 1)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if mode == "ALIGN_CORNERS" and count == 1:
            return torch.tensor([last / 2], dtype=torch.float64)
        points = steps * (last / (count - 1) if count > 1 else 0.0)
    elif mode == "DEFAULT":
        points = steps * (size / count)
    elif mode == "OFFSET_CORNERS":
        delta = max(1.0, last) / count
        points = (steps + 0.5) * delta
    elif mode == "UNALIGN_CORNERS":
        points = (steps + 0.5) * (size / count) - 0.5
    else:
        raise call.wrong(f"sampling mode {mode!r}")
    return points.clamp(0.0, last)


def linear(x: Tensor, axis: int, points: Tensor) -> Tensor:
    """Interpolate ``x`` linearly at float64 ``points`` along ``axis``."""
    low = points.floor().long()
    high = (low + 1).clamp(max=x.shape[axis] - 1)
    weight = (points - low).to(x.dtype).reshape([-1 if place == axis % x.dim() else 1 for place in range(x.dim())])
    below, above = torch.index_select(x, axis, low), torch.index_select(x, axis, high)
    return below + (above - below) * weight


def _bilinear(call: Call, height: int, width: int, mode: str) -> Tensor:
    x = call.tensor("x")
    for axis, count in ((-2, height), (-1, width)):
        x = linear(x, axis, grid(call, x.shape[axis], count, mode))
    return x


@op("resize_bilinear")
def resize_bilinear(call: Call) -> Results:
    """To a target size."""
    return _bilinear(
        call,
        call.integer("target_size_height", 1),
        call.integer("target_size_width", 1),
        call.text("sampling_mode", "DEFAULT"),
    )


@op("upsample_bilinear")
def upsample_bilinear(call: Call) -> Results:
    """By scale factors, rounded down to whole sizes."""
    x = call.raw("x")
    corners = call.flag("align_corners", True)
    half_pixel = call.flag("half_pixel_centers", not corners)
    mode = "STRICT_ALIGN_CORNERS" if corners else "UNALIGN_CORNERS" if half_pixel else "DEFAULT"
    height = int(x.shape[-2] * call.number("scale_factor_height", 1.0))
    width = int(x.shape[-1] * call.number("scale_factor_width", 1.0))
    return _bilinear(call, height, width, mode)


def _nearest(x: Tensor, axis: int, count: int) -> Tensor:
    index = (torch.arange(count, dtype=torch.float64) * (x.shape[axis] / count)).floor().long()
    return torch.index_select(x, axis, index.clamp(max=x.shape[axis] - 1))


@op("resize_nearest_neighbor")
def resize_nearest_neighbor(call: Call) -> Results:
    """To a target size; sample i reads floor(i * in / out)."""
    x = _nearest(call.raw("x"), -2, call.integer("target_size_height"))
    return _nearest(x, -1, call.integer("target_size_width"))


@op("upsample_nearest_neighbor")
def upsample_nearest_neighbor(call: Call) -> Results:
    """By scale factors, rounded down to whole sizes."""
    x = call.raw("x")
    height = int(x.shape[-2] * call.number("scale_factor_height", 1.0))
    width = int(x.shape[-1] * call.number("scale_factor_width", 1.0))
    return _nearest(_nearest(x, -2, height), -1, width)


@op("resize")
def resize(call: Call) -> Results:
    """The last ``resized_dims`` axes to the last sizes of ``shape``; 0 keeps the size."""
    x, sizes, axes = call.tensor("x"), call.integers("shape"), call.integer("resized_dims")
    mode = call.text("sampling_mode", "DEFAULT")
    nearest = call.text("interpolation_mode", "LINEAR") == "NEAREST_NEIGHBOR"
    for axis, size in zip(range(-axes, 0), sizes[len(sizes) - axes :], strict=True):
        count = size or x.shape[axis]
        if not nearest:
            x = linear(x, axis, grid(call, x.shape[axis], count, mode))
        elif mode == "DEFAULT":
            x = _nearest(x, axis, count)
        else:
            x = torch.index_select(x, axis, grid(call, x.shape[axis], count, mode).add(0.5).floor().long())
    return x
