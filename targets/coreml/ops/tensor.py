"""Building, joining, splitting and padding tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from edgedeploy.targets.coreml.registry import Call, Results, computing, op


@op("concat")
def concat(call: Call) -> Results:
    """Join along ``axis``; interleaved takes one slice of each in turn."""
    values, axis = call.many("values"), call.integer("axis")
    if not call.flag("interleave"):
        return torch.cat(values, axis)
    axis %= values[0].dim()
    return torch.stack(values, axis + 1).flatten(axis, axis + 1)


@op("stack")
def stack(call: Call) -> Results:
    """Join along a new axis."""
    return torch.stack(call.many("values"), call.integer("axis"))


@op("split")
def split(call: Call) -> Results:
    """Cut along ``axis`` into equal parts or the given sizes."""
    x, axis = call.raw("x"), call.integer("axis")
    if call.has("split_sizes"):
        return tuple(torch.split(x, call.integers("split_sizes"), axis))
    parts = call.integer("num_splits")
    if x.shape[axis] % parts:
        raise call.wrong(f"axis of {x.shape[axis]} does not divide into {parts} parts")
    return tuple(torch.split(x, x.shape[axis] // parts, axis))


@op("tile")
def tile(call: Call) -> Results:
    """Repeat along each axis."""
    return torch.tile(call.raw("x"), call.integers("reps"))


@op("fill")
def fill(call: Call) -> Results:
    """A tensor of one value."""
    value = call.tensor("value") if call.has("value") else torch.tensor(0.0)
    return value.reshape(()).expand(call.integers("shape")).clone()


@op("fill_like")
def fill_like(call: Call) -> Results:
    """A tensor of one value, shaped like another."""
    value = call.tensor("value") if call.has("value") else torch.tensor(0.0)
    return value.reshape(()).expand(call.raw("ref_tensor").shape).clone()


@op("range_1d")
def range_1d(call: Call) -> Results:
    """``numpy.arange(start, end, step)``."""
    start, end, step = (call.tensor(name) for name in ("start", "end", "step"))
    whole = not any(value.is_floating_point() for value in (start, end, step))
    return torch.arange(start.item(), end.item(), step.item(), dtype=torch.int32 if whole else torch.float32)


@op("pad")
def pad(call: Call) -> Results:
    """Pad the last axes; ``pad`` lists (before, after) per axis, the first of them first."""
    x, amounts, mode = call.tensor("x"), call.integers("pad"), call.text("mode", "constant")
    if mode == "constant":
        order = [amount for axis in range(len(amounts) // 2 - 1, -1, -1) for amount in amounts[2 * axis : 2 * axis + 2]]
        return F.pad(x, order, value=call.number("constant_val", 0.0))
    # torch reflects and replicates only some axes of some ranks; an index along each axis does all.
    first = x.dim() - len(amounts) // 2
    for axis in range(first, x.dim()):
        before, after = amounts[2 * (axis - first) : 2 * (axis - first) + 2]
        size = x.shape[axis]
        index = torch.arange(-before, size + after)
        if mode == "reflect":
            if max(before, after) >= size:
                raise call.wrong(f"reflect padding of {max(before, after)} on an axis of {size}")
            index = index.abs()
            index = torch.where(index >= size, 2 * (size - 1) - index, index)
        elif mode == "replicate":
            index = index.clamp(0, size - 1)
        else:
            raise call.wrong(f"pad mode {mode!r}")
        x = torch.index_select(x, axis, index)
    return x


@op("one_hot")
def one_hot(call: Call) -> Results:
    """``on_value`` where the new ``axis`` equals the index, ``off_value`` elsewhere."""
    indices, size, axis = call.tensor("indices"), call.integer("one_hot_vector_size"), call.integer("axis", -1)
    on = call.tensor("on_value") if call.has("on_value") else torch.tensor(1, dtype=torch.int32)
    off = call.tensor("off_value") if call.has("off_value") else torch.tensor(0, dtype=torch.int32)
    rank = indices.dim() + 1
    axis %= rank
    classes = torch.arange(size).reshape([-1 if place == axis else 1 for place in range(rank)])
    return torch.where(indices.unsqueeze(axis) == classes, on, off)


@op("cumsum")
def cumsum(call: Call) -> Results:
    """Running sum along ``axis``, from the end or without the element itself on request."""
    x, axis = call.tensor("x"), call.integer("axis", 0)
    x = x.flip(axis) if call.flag("reverse") else x
    total = x.cumsum(axis, dtype=x.dtype)
    if call.flag("exclusive"):
        total = total - x
    return total.flip(axis) if call.flag("reverse") else total


@op("band_part")
def band_part(call: Call) -> Results:
    """Keep ``lower`` and ``upper`` diagonals of each matrix (negative: all)."""
    x, lower, upper = call.raw("x"), call.integer("lower", -1), call.integer("upper", -1)
    rows = torch.arange(x.shape[-2]).unsqueeze(1)
    columns = torch.arange(x.shape[-1]).unsqueeze(0)
    keep = ((lower < 0) | (rows - columns <= lower)) & ((upper < 0) | (columns - rows <= upper))
    return torch.where(keep, x, torch.zeros((), dtype=x.dtype))


@op("shape")
def shape(call: Call) -> Results:
    """The sizes of x."""
    return torch.tensor(list(call.raw("x").shape), dtype=torch.int32)


@op("select")
def select(call: Call) -> Results:
    """A where the condition holds, b elsewhere."""
    condition = call.tensor("cond")
    return torch.where(condition.bool(), computing(call.raw("a")), computing(call.raw("b")))
