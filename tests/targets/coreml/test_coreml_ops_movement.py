"""Shape, slice, gather, scatter, build, sort and resize ops against numpy and torch definitions."""
# ruff: noqa: E501, PLW0108 - one case a row, read as a table

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from mil_program import Batch, Case, run

from edgedeploy.errors import InputError

RNG = np.random.default_rng(2)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def t(array):
    return torch.from_numpy(np.asarray(array, np.float64))


X = normal(2, 3, 4)
SQUARE = normal(2, 4, 4)
IMAGE = normal(1, 4, 4, 6)
PATCH = normal(1, 2, 3, 4)


def one(op, expected, note="", x=X, target="iOS17", **arguments):
    return Case(op, lambda mb, x: getattr(mb, op)(x=x, **arguments), {"x": x}, lambda x: expected(x), note, target)


SHAPES = [
    one("reshape", lambda x: x.reshape(2, -1, 2), shape=[0, -1, 2]),
    one("reshape", lambda x: x.reshape(3, 8), "zero-from-the-end", shape=[0, -1]),
    one("expand_dims", lambda x: x[:, None, :, :, None], axes=[1, -1]),
    one("squeeze", lambda x: x[:, 0], x=normal(2, 1, 3), axes=[1]),
    one("squeeze", lambda x: x.squeeze(), "all", x=normal(1, 2, 1, 3)),
    one("transpose", lambda x: x.transpose(2, 0, 1), perm=[2, 0, 1]),
    one("flatten2d", lambda x: x.reshape(6, 4), axis=2),
    one("shape", lambda x: np.array(x.shape, np.int32)),
    Case(
        "reshape_like",
        lambda mb, x, a, b: mb.reshape_like(x=x, ref_tensors=(a, b), begins=(0, 1), ends=(2, 0), end_masks=(False, True)),
        {"x": normal(2, 3, 5, 6), "a": X, "b": normal(1, 30)}, lambda x, a, b: x.reshape(2, 3, 30),
    ),
]  # fmt: skip

SLICES = [
    one("slice_by_index", lambda x: x[0:2, 1:3, ::2], begin=[0, 1, 0], end=[2, 3, 4], stride=[1, 1, 2]),
    one("slice_by_index", lambda x: x[:, ::-1, -2:], "masks", begin=[1, 0, -2], end=[1, 0, 0], stride=[1, -1, 1],
        begin_mask=[True, True, False], end_mask=[True, True, True]),
    one("slice_by_index", lambda x: x[1, :, -1], "squeeze", begin=[1, 0, -1], end=[0, 3, 0], squeeze_mask=[True, False, True]),
    one("slice_by_size", lambda x: x[1:2, 0:2, 1:], begin=[1, 0, 1], size=[1, 2, -1]),
    one("reverse", lambda x: x[::-1, :, ::-1], axes=[0, 2]),
    one("reverse", lambda x: x[::-1, ::-1, ::-1], "all"),
    Case("slice_update", lambda mb, x, u: mb.slice_update(x=x, update=u, begin=[0, 0, 1], end=[2, 3, 3], stride=[1, 2, 1]),
         {"x": X, "u": normal(2, 2, 2)}, lambda x, u: _updated(x, u), target="iOS18"),
    Case("reverse_sequence", lambda mb, x: mb.reverse_sequence(x=x, lengths=[2, 3], seq_axis=1, batch_axis=0), {"x": X},
         lambda x: np.stack([np.concatenate([x[0, 1::-1], x[0, 2:]]), x[1, ::-1]])),
]  # fmt: skip


def _updated(x, u):
    x = x.copy()
    x[0:2, 0:3:2, 1:3] = u
    return x


def depth_to_space(x, block):
    """Written element by element (TensorFlow's DCR order)."""
    n, c, h, w = x.shape
    out = np.zeros((n, c // block**2, h * block, w * block))
    for channel in range(c // block**2):
        for i in range(h * block):
            for j in range(w * block):
                source = ((i % block) * block + j % block) * (c // block**2) + channel
                out[:, channel, i, j] = x[:, source, i // block, j // block]
    return out


def space_to_batch(x, block, pads):
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    return np.concatenate([x[:, :, i :: block[0], j :: block[1]] for i in range(block[0]) for j in range(block[1])])


DEEP = normal(1, 8, 2, 3)
BLOCKS = [
    one("pixel_shuffle", lambda x: F.pixel_shuffle(t(x), 2), x=DEEP, upscale_factor=2),
    one("pixel_unshuffle", lambda x: F.pixel_unshuffle(t(x), 2), x=IMAGE, downscale_factor=np.uint32(2)),
    one("depth_to_space", lambda x: depth_to_space(x, 2), x=DEEP, block_size=2),
    one("space_to_depth", lambda x: x, x=IMAGE, block_size=2),
    one("space_to_batch", lambda x: space_to_batch(x, (2, 3), [(1, 1), (0, 0)]), x=IMAGE, block_shape=[2, 3], paddings=[[1, 1], [0, 0]]),
    one("batch_to_space", lambda x: x, x=normal(6, 2, 2, 3), block_shape=[2, 3], crops=[[1, 0], [0, 2]]),
    one("crop", lambda x: x[..., 1:3, 2:6], x=IMAGE, crop_height=[1, 1], crop_width=[2, 0]),
    one("sliding_windows", lambda x: np.stack([x[:, i : i + 2] for i in (0, 1)], 1).reshape(2, 2, 2, 4), axis=1, size=2),
    one("sliding_windows", lambda x: np.lib.stride_tricks.sliding_window_view(x, 3, 0)[::2].transpose(0, 2, 1), "stride",
        x=normal(7, 2), axis=0, size=3, stride=2),
]  # fmt: skip
# The inverses, by what undoes them.
BLOCKS[3] = dataclasses.replace(
    BLOCKS[3], expected=lambda x: _inverse(lambda y: depth_to_space(y, 2), x, (1, 16, 2, 3))
)
BLOCKS[5] = dataclasses.replace(
    BLOCKS[5],
    expected=lambda x: _inverse(lambda y: space_to_batch(y, (2, 3), [(0, 0), (0, 0)]), x, (1, 2, 4, 9))[:, :, 1:, :7],
)


def _inverse(function, x, shape):
    """Undo a permutation of elements: apply it to positions, then put each element back."""
    size = int(np.prod(shape))
    places = function(np.arange(size, dtype=float).reshape(shape)).astype(int).ravel()
    out = np.zeros(size)
    out[places] = x.ravel()
    return out.reshape(shape)


IDX = np.array([[2, 0], [-1, 1]], np.int32)
ALONG = np.array([[[2, 0, 1, 1]], [[0, 0, 2, -1]]], np.int32)
GATHERS = [
    Case("gather", lambda mb, x, i: mb.gather(x=x, indices=i, axis=1), {"x": X, "i": IDX}, lambda x, i: np.take(x, i, 1, mode="wrap")),
    Case("gather", lambda mb, x, i: mb.gather(x=x, indices=i, axis=1, batch_dims=1), {"x": X, "i": IDX},
         lambda x, i: np.stack([x[b][i[b]] for b in range(2)]), "batch"),
    Case("gather_along_axis", lambda mb, x, i: mb.gather_along_axis(x=x, indices=i, axis=1), {"x": X, "i": ALONG},
         lambda x, i: np.take_along_axis(x, i % 3, 1)),
    Case("gather_nd", lambda mb, x, i: mb.gather_nd(x=x, indices=i), {"x": X, "i": np.array([[0, 1], [1, -1]], np.int32)},
         lambda x, i: np.stack([x[0, 1], x[1, 2]])),
    Case("gather_nd", lambda mb, x, i: mb.gather_nd(x=x, indices=i, batch_dims=1), {"x": X, "i": np.array([[[2, 3]], [[0, 1]]], np.int32)},
         lambda x, i: np.array([[x[0, 2, 3]], [x[1, 0, 1]]]), "batch"),
]  # fmt: skip

OPERATIONS = {
    "update": lambda a, b: b, "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
    "max": np.maximum, "min": np.minimum,
}  # fmt: skip


def scatter_loop(data, places, updates, mode):
    """The definition: one update after another."""
    data = data.copy()
    for place, update in zip(places, updates, strict=True):
        data[place] = OPERATIONS[mode](data[place], update)
    return data


UPDATES = np.abs(normal(2, 2, 4)) + 0.5
TWICE = np.array([1, 1], np.int32)
SCATTERS = [
    Case("scatter", lambda mb, x, i, u, mode=mode: mb.scatter(data=x, indices=i, updates=u, axis=1, mode=mode),
         {"x": X, "i": np.array([2, 0], np.int32) if mode == "update" else TWICE, "u": UPDATES},
         lambda x, i, u, mode=mode: scatter_loop(x, [np.s_[:, k] for k in i], [u[:, n] for n in range(2)], mode), mode)
    for mode in OPERATIONS
] + [
    Case("scatter_along_axis", lambda mb, x, i, u: mb.scatter_along_axis(data=x, indices=i, updates=u, axis=1, mode="add"),
         {"x": X, "i": np.abs(ALONG), "u": normal(2, 1, 4)},
         lambda x, i, u: scatter_loop(x, [(a, i[a, 0, c], c) for a in range(2) for c in range(4)],
                                      [u[a, 0, c] for a in range(2) for c in range(4)], "add")),
    Case("scatter_nd", lambda mb, x, i, u: mb.scatter_nd(data=x, indices=i, updates=u, mode="add"),
         {"x": X, "i": np.array([[0, 1], [0, 1], [1, 2]], np.int32), "u": normal(3, 4)},
         lambda x, i, u: scatter_loop(x, [tuple(row) for row in i], u, "add")),
    Case("scatter_nd", lambda mb, x, i, u: mb.scatter_nd(data=x, indices=i, updates=u, mode="update"),
         {"x": X, "i": np.array([[0, 1, 2], [1, 2, -1]], np.int32), "u": normal(2)},
         lambda x, i, u: scatter_loop(x, [tuple(row) for row in i], u, "update"), "elements"),
]  # fmt: skip

BUILDS = [
    Case("concat", lambda mb, x, y: mb.concat(values=(x, y), axis=1), {"x": X, "y": normal(2, 2, 4)}, lambda x, y: np.concatenate([x, y], 1)),
    Case("concat", lambda mb, x, y: mb.concat(values=(x, y), axis=1, interleave=True), {"x": X, "y": normal(2, 3, 4)},
         lambda x, y: np.stack([x, y], 2).reshape(2, 6, 4), "interleave"),
    Case("stack", lambda mb, x, y: mb.stack(values=(x, y), axis=-1), {"x": X, "y": normal(2, 3, 4)}, lambda x, y: np.stack([x, y], -1)),
    one("split", lambda x: np.split(x, 2, 2), num_splits=2, axis=2),
    one("split", lambda x: [x[..., :1], x[..., 1:]], "sizes", split_sizes=[1, 3], axis=2),
    one("tile", lambda x: np.tile(x, (1, 2, 3)), reps=[1, 2, 3]),
    one("pad", lambda x: np.pad(x, [(0, 0), (1, 0), (0, 2)], constant_values=1.5), pad=[1, 0, 0, 2], mode="constant", constant_val=1.5),
    one("pad", lambda x: np.pad(x, [(0, 0), (1, 2), (3, 1)], "reflect"), "reflect", pad=[0, 0, 1, 2, 3, 1], mode="reflect"),
    one("pad", lambda x: np.pad(x, [(0, 0), (1, 2), (3, 1)], "edge"), "replicate", pad=[1, 2, 3, 1], mode="replicate"),
    Case("fill", lambda mb, x: mb.add(x=x, y=mb.fill(shape=[2, 3, 4], value=2.5)), {"x": X}, lambda x: x + 2.5),
    Case("fill_like", lambda mb, x: mb.fill_like(ref_tensor=x, value=3.5), {"x": X}, lambda x: np.full_like(x, 3.5)),
    Case("range_1d", lambda mb, n: mb.range_1d(start=1, end=mb.squeeze(x=n), step=2), {"n": np.array([8], np.int32)},
         lambda n: np.arange(1, 8, 2, dtype=np.int32)),
    Case("range_1d", lambda mb, n: mb.range_1d(start=5.0, end=mb.squeeze(x=n), step=-1.5), {"n": np.array([-1], np.float32)},
         lambda n: np.arange(5, -1, -1.5), "down"),
    Case("one_hot", lambda mb, i: mb.one_hot(indices=i, one_hot_vector_size=3, axis=0, on_value=2.0, off_value=-1.0),
         {"i": np.array([2, 0, 1, 1], np.int32)}, lambda i: np.where(np.arange(3)[:, None] == i, 2.0, -1.0)),
    one("cumsum", lambda x: np.cumsum(x, 1), axis=1),
    one("cumsum", lambda x: np.cumsum(x[::-1], 0)[::-1] - x, "reverse-exclusive", axis=0, reverse=True, exclusive=True),
    one("band_part", lambda x: np.triu(np.tril(x, 2), -1), x=SQUARE, lower=1, upper=2),
    one("band_part", lambda x: np.tril(x), "lower-all", x=SQUARE, lower=-1, upper=0),
    Case("select", lambda mb, c, a, b: mb.select(cond=c, a=a, b=b), {"c": X > 0, "a": X, "b": normal(2, 3, 4)}, lambda c, a, b: np.where(c, a, b)),
]  # fmt: skip

TIES = np.array([[1.0, 3.0, 3.0, 2.0], [0.0, -1.0, 0.0, 5.0]], np.float32)
SORTS = [
    one("topk", lambda x: (np.array([[3.0, 3.0], [5.0, 0.0]]), np.array([[1, 2], [3, 0]], np.int32)), x=TIES, k=2, axis=1),
    one("topk", lambda x: (np.sort(x, 0)[:1], np.argsort(x, 0, kind="stable")[:1].astype(np.int32)), "ascending", x=TIES, k=1, axis=0, ascending=True),
    one("argsort", lambda x: np.argsort(-x, 1, kind="stable").astype(np.int32), x=TIES, axis=1),
    one("argsort", lambda x: np.argsort(x, 0, kind="stable").astype(np.int32), "ascending", x=TIES, axis=0, ascending=True),
    one("non_zero", lambda x: np.argwhere(x).astype(np.int32), x=np.array([[0.0, 2.0], [3.0, 0.0]], np.float32)),
]  # fmt: skip


# ---- resize: positions written out per mode, interpolation with numpy.interp
def positions(size, count, mode):
    i = np.arange(count)
    if mode == "STRICT_ALIGN_CORNERS" or (mode == "ALIGN_CORNERS" and count > 1):
        return i * (size - 1) / (count - 1)
    if mode == "ALIGN_CORNERS":
        return np.array([(size - 1) / 2])
    if mode == "DEFAULT":
        return np.minimum(size - 1, i * (size - size / count) / (count - 1))
    if mode == "OFFSET_CORNERS":
        delta = max(1, size - 1) / count
        return np.minimum(size - 1, 0.5 * delta + i * delta)
    return np.clip((i + 0.5) * size / count - 0.5, 0, size - 1)


def bilinear(x, height, width, mode):
    def line(row, count):
        return np.interp(positions(len(row), count, mode), np.arange(len(row)), row)

    return np.apply_along_axis(line, -1, np.apply_along_axis(line, -2, x, height), width)


MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")
GRID = RNG.uniform(-1.3, 1.3, (1, 3, 5, 2)).astype(np.float32)
MATRIX = np.array([[0.8, 0.3, 0.1, -0.2, 0.9, 0.05]], np.float32)


def resample(note, expected, **arguments):
    settings = {
        "sampling_mode": "bilinear", "padding_mode": "constant", "padding_value": 0.0,
        "coordinates_mode": "normalized_minus_one_to_one", "align_corners": True, **arguments,
    }  # fmt: skip
    return Case(
        "resample", lambda mb, x, g: mb.resample(x=x, coordinates=g, **settings), {"x": PATCH, "g": GRID},
        lambda x, g: expected(t(x), t(g)), note, tolerance=1e-4,
    )  # fmt: skip


def pixels_to_unit(g):
    return torch.stack([g[..., 0] * 2 / 3 - 1, g[..., 1] * 2 / 2 - 1], -1)


BOXES = np.array([[0.2, 0.5, 1.7, 2.5], [1.0, 1.0, 2.0, 3.0]], np.float32)


def crop(x, box, height, width):
    rows = np.linspace(box[0], box[2], height)
    columns = np.linspace(box[1], box[3], width)
    out = np.apply_along_axis(lambda row: np.interp(rows, np.arange(len(row)), row), -2, x)
    return np.apply_along_axis(lambda row: np.interp(columns, np.arange(len(row)), row), -1, out)


RESIZES = [
    Case("resize_bilinear", lambda mb, x, mode=mode: mb.resize_bilinear(x=x, target_size_height=5, target_size_width=7, sampling_mode=mode),
         {"x": PATCH}, lambda x, mode=mode: bilinear(x, 5, 7, mode), mode)
    for mode in MODES
] + [
    Case("resize_bilinear", lambda mb, x: mb.resize_bilinear(x=x, target_size_height=1, target_size_width=2, sampling_mode="ALIGN_CORNERS"),
         {"x": PATCH}, lambda x: bilinear(x, 1, 2, "ALIGN_CORNERS"), "to-one"),
    Case("upsample_bilinear", lambda mb, x: mb.upsample_bilinear(x=x, scale_factor_height=2, scale_factor_width=3, align_corners=True),
         {"x": PATCH}, lambda x: F.interpolate(t(x), scale_factor=(2, 3), mode="bilinear", align_corners=True)),
    Case("upsample_bilinear", lambda mb, x: mb.upsample_bilinear(x=x, scale_factor_height=2, scale_factor_width=2, align_corners=False),
         {"x": PATCH}, lambda x: F.interpolate(t(x), scale_factor=2, mode="bilinear", align_corners=False), "half-pixel"),
    Case("upsample_nearest_neighbor", lambda mb, x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=3),
         {"x": PATCH}, lambda x: x.repeat(2, 2).repeat(3, 3)),
    Case("resize_nearest_neighbor", lambda mb, x: mb.resize_nearest_neighbor(x=x, target_size_height=5, target_size_width=3),
         {"x": PATCH}, lambda x: F.interpolate(t(x), (5, 3), mode="nearest")),
    Case("resize", lambda mb, x: mb.resize(x=x, shape=[1, 5, 0], resized_dims=np.uint32(2), sampling_mode="UNALIGN_CORNERS"),
         {"x": PATCH}, lambda x: bilinear(x, 5, 4, "UNALIGN_CORNERS")),
    Case("resize", lambda mb, x: mb.resize(x=x, shape=[6, 2], resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR"),
         {"x": PATCH}, lambda x: F.interpolate(t(x), (6, 2), mode="nearest"), "nearest"),
    Case("crop_resize", lambda mb, x: mb.crop_resize(x=x, boxes=BOXES, box_indices=[0, 0], target_height=3, target_width=4, sampling_mode="STRICT_ALIGN_CORNERS"),
         {"x": PATCH}, lambda x: np.stack([crop(x[0], box, 3, 4) for box in BOXES]), tolerance=1e-4),
    Case("crop_resize", lambda mb, x: mb.crop_resize(x=x, roi=BOXES.reshape(2, 1, 4, 1, 1), target_height=3, target_width=4, sampling_mode="ALIGN_CORNERS"),
         {"x": PATCH}, lambda x: np.stack([crop(x, box, 3, 4) for box in BOXES]), "roi", target="iOS15", tolerance=1e-4),
    Case("affine", lambda mb, x: mb.affine(x=x, transform_matrix=MATRIX, output_height=5, output_width=6, sampling_mode="bilinear",
         padding_mode="constant", padding_value=0.0, coordinates_mode="normalized_minus_one_to_one", align_corners=True), {"x": PATCH},
         lambda x: F.grid_sample(t(x), F.affine_grid(t(MATRIX).reshape(1, 2, 3), [1, 2, 5, 6], align_corners=True), align_corners=True), tolerance=1e-4),
    resample("zeros", lambda x, g: F.grid_sample(x, g, align_corners=True)),
    resample("value", lambda x, g: F.grid_sample(x - 2, g, align_corners=True) + 2, padding_value=2.0),
    resample("border", lambda x, g: F.grid_sample(x, g, padding_mode="border", align_corners=False), padding_mode="border", align_corners=False),
    resample("reflection", lambda x, g: F.grid_sample(x, g, padding_mode="reflection", align_corners=True), padding_mode="reflection"),
    resample("symmetric", lambda x, g: F.grid_sample(x, g, padding_mode="reflection", align_corners=False), padding_mode="symmetric", align_corners=False),
    resample("nearest-pixels", lambda x, g: F.grid_sample(x, pixels_to_unit(g), "nearest", align_corners=True), sampling_mode="nearest", coordinates_mode="unnormalized"),
]  # fmt: skip

CASES = SHAPES + SLICES + BLOCKS + GATHERS + SCATTERS + BUILDS + SORTS + RESIZES
FULL_BATCH = Batch(CASES)
HALF_IDS = {
    "reshape", "transpose", "slice_by_index", "concat", "pad", "cumsum", "select", "gather", "scatter-add", "one_hot",
    "upsample_bilinear", "tile", "stack", "split", "pixel_shuffle", "upsample_nearest_neighbor",
}  # fmt: skip
HALF_CASES = [dataclasses.replace(case, half=True) for case in CASES if case.id in HALF_IDS - {"one_hot"}]
HALF_BATCH = Batch(HALF_CASES, half=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float32(case):
    FULL_BATCH.check(case)


@pytest.mark.parametrize("case", HALF_CASES, ids=lambda case: case.id)
def test_float16(case):
    HALF_BATCH.check(case)


def test_an_index_outside_its_axis_is_an_error():
    with pytest.raises(InputError, match=r"gather") as caught:
        run(lambda mb, x, i: mb.gather(x=x, indices=i, axis=1), {"x": X, "i": np.array([3], np.int32)})
    assert "outside an axis of 3" in str(caught.value)
