"""Ops that move blocks between channels, space, batch and windows."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from edgedeploy.targets.coreml.ops.padding import torch_order
from edgedeploy.targets.coreml.registry import Call, Results, op


@op("pixel_shuffle")
def pixel_shuffle(call: Call) -> Results:
    """(n, C·r², H, W) → (n, C, H·r, W·r), channel-major as in PyTorch."""
    return F.pixel_shuffle(call.raw("x"), call.integer("upscale_factor"))


@op("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> Results:
    """The inverse of ``pixel_shuffle``."""
    return F.pixel_unshuffle(call.raw("x"), call.integer("downscale_factor"))


@op("depth_to_space")
def depth_to_space(call: Call) -> Results:
    """(n, b²·C, H, W) → (n, C, H·b, W·b), block-major as in TensorFlow."""
    x, block = call.raw("x"), call.integer("block_size")
    n, channels, height, width = x.shape
    x = x.reshape(n, block, block, channels // block**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, channels // block**2, height * block, width * block)


@op("space_to_depth")
def space_to_depth(call: Call) -> Results:
    """The inverse of ``depth_to_space``."""
    x, block = call.raw("x"), call.integer("block_size")
    n, channels, height, width = x.shape
    x = x.reshape(n, channels, height // block, block, width // block, block).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, channels * block**2, height // block, width // block)


@op("space_to_batch")
def space_to_batch(call: Call) -> Results:
    """Pad, then move blocks of (H, W) into the batch (``tf.space_to_batch``, channels first)."""
    x, (rows, columns) = call.raw("x"), call.integers("block_shape")
    top, bottom, left, right = call.integers("paddings")
    x = F.pad(x, torch_order([(top, bottom), (left, right)]))
    n, channels, height, width = x.shape
    x = x.reshape(n, channels, height // rows, rows, width // columns, columns).permute(3, 5, 0, 1, 2, 4)
    return x.reshape(n * rows * columns, channels, height // rows, width // columns)


@op("batch_to_space")
def batch_to_space(call: Call) -> Results:
    """Move blocks from the batch back into (H, W), then crop."""
    x, (rows, columns) = call.raw("x"), call.integers("block_shape")
    top, bottom, left, right = call.integers("crops")
    batch, channels, height, width = x.shape
    n = batch // (rows * columns)
    x = x.reshape(rows, columns, n, channels, height, width).permute(2, 3, 4, 0, 5, 1)
    x = x.reshape(n, channels, height * rows, width * columns)
    return x[:, :, top : height * rows - bottom, left : width * columns - right]


@op("crop")
def crop(call: Call) -> Results:
    """Cut (before, after) from the last two axes."""
    x = call.raw("x")
    top, bottom = call.integers("crop_height")
    left, right = call.integers("crop_width")
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


@op("sliding_windows")
def sliding_windows(call: Call) -> Results:
    """All windows of ``size`` along ``axis``, ``stride`` apart, on a new axis after it."""
    x = call.raw("x")
    axis = call.integer("axis") % x.dim()
    windows = x.unfold(axis, call.integer("size"), call.integer("stride", 1))
    return torch.movedim(windows, -1, axis + 1)
