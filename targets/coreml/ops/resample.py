"""Sampling an image at given coordinates: boxes, affine maps and free grids."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from edgedeploy.targets.coreml.ops.resize import grid
from edgedeploy.targets.coreml.registry import Call, Results, op


def _sample(image: Tensor, rows: Tensor, columns: Tensor, mode: str, padding: str) -> Tensor:
    """(n, C, H, W) at pixel coordinates rows, columns of shape (n, h, w)."""
    height, width = image.shape[-2:]
    points = torch.stack([2 * columns / max(width - 1, 1) - 1, 2 * rows / max(height - 1, 1) - 1], -1).to(image.dtype)
    return F.grid_sample(image, points, mode, padding, align_corners=True)


def _boxes(call: Call, box: Tensor, height: int, width: int) -> tuple[float, float, float, float]:
    """Top, left, bottom, right in pixels."""
    order = call.text("box_coordinate_mode", "CORNERS_HEIGHT_FIRST")
    first, second, third, fourth = (float(value) for value in box.reshape(-1)[-4:])
    if order.endswith("WIDTH_FIRST"):
        first, second, third, fourth = second, first, fourth, third
    if order.startswith("CENTER"):
        first, second, third, fourth = (
            first - third / 2, second - fourth / 2, first + third / 2, second + fourth / 2,
        )  # fmt: skip
    scale = call.number("spatial_scale", 1.0)
    down, right = (height - 1, width - 1) if call.flag("normalized_coordinates") else (1, 1)
    return first * scale * down, second * scale * right, third * scale * down, fourth * scale * right


@op("crop_resize")
def crop_resize(call: Call) -> Results:
    """Bilinear crops; iOS 15 takes ``roi`` (N, 1, 4 or 5, 1, 1), iOS 17 ``boxes`` (N, 4) and ``box_indices``."""
    x = call.tensor("x")
    height, width = call.integer("target_height", 1), call.integer("target_width", 1)
    mode = call.text("sampling_mode", "DEFAULT")
    modern = call.has("boxes")
    boxes = call.tensor("boxes" if modern else "roi")
    if modern:
        indices: list[int] | None = call.integers("box_indices", range(boxes.shape[0]))
    else:
        indices = [int(box.reshape(-1)[0]) for box in boxes] if boxes.shape[2] == 5 else None
    crops = []
    for number, box in enumerate(boxes):
        images = x if indices is None else x[indices[number] : indices[number] + 1]
        top, left, bottom, right = _boxes(call, box, x.shape[-2], x.shape[-1])
        rows = top + grid(call, bottom - top + 1, height, mode)
        columns = left + grid(call, right - left + 1, width, mode)
        mesh = torch.meshgrid(rows, columns, indexing="ij")
        points = [part.expand(len(images), height, width) for part in mesh]
        value = call.number("pad_value", 0.0)
        if modern:
            outside = (points[0] < 0) | (points[0] > x.shape[-2] - 1) | (points[1] < 0) | (points[1] > x.shape[-1] - 1)
            crop = _sample(images, points[0], points[1], "bilinear", "border")
            crops.append(torch.where(outside.unsqueeze(1), torch.tensor(value), crop)[0])
        else:
            crops.append(_sample(images, points[0], points[1], "bilinear", "border"))
    return torch.stack(crops)


@op("affine")
def affine(call: Call) -> Results:
    """Bilinear affine map in [-1, 1] coordinates of the corner pixels' centres, zeros outside."""
    x, matrix = call.tensor("x"), call.tensor("transform_matrix")
    size = (x.shape[0], x.shape[1], call.integer("output_height"), call.integer("output_width"))
    matrix = matrix.expand(x.shape[0], 6).reshape(-1, 2, 3)
    points = F.affine_grid(matrix, list(size), align_corners=True)
    return F.grid_sample(x, points, "bilinear", "zeros", align_corners=True)


@op("resample")
def resample(call: Call) -> Results:
    """Sample x (n, C, H, W) at coordinates (n, h, w, 2) given as (x, y)."""
    x, points = call.tensor("x"), call.tensor("coordinates").float()
    units, corners = call.text("coordinates_mode"), call.flag("align_corners")
    pixels = []
    for position, size in ((points[..., 1], x.shape[-2]), (points[..., 0], x.shape[-1])):
        if units == "unnormalized":
            pixels.append(position)
            continue
        unit = (position + 1) / 2 if units == "normalized_minus_one_to_one" else position
        pixels.append(unit * (size - 1) if corners else unit * size - 0.5)
    rows, columns = pixels
    padding = call.text("padding_mode")
    sampling = call.text("sampling_mode")
    if padding == "symmetric":
        # Reflects about the outer edge of the outer pixels, which they then share with their mirror image.
        rows, columns = _symmetric(rows, x.shape[-2]), _symmetric(columns, x.shape[-1])
        return _sample(x, rows, columns, sampling, "border")
    if padding == "constant":
        value = call.number("padding_value", 0.0)
        return _sample(x - value, rows, columns, sampling, "zeros") + value
    return _sample(x, rows, columns, sampling, padding)


def _symmetric(position: Tensor, size: int) -> Tensor:
    shifted = torch.remainder(position + 0.5, 2 * size)
    return torch.where(shifted > size, 2 * size - shifted, shifted) - 0.5
