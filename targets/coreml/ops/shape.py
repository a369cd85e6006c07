"""Ops that change a shape and leave the data where they are."""

from __future__ import annotations

from edgedeploy.targets.coreml.registry import Call, Results, op


@op("reshape")
def reshape(call: Call) -> Results:
    """-1 is inferred; 0 takes the size of the axis of x at the same distance from the end, or 1 where there is none."""
    x, sizes = call.raw("x"), call.integers("shape")
    shift = x.dim() - len(sizes)
    return x.reshape([size or (x.shape[axis + shift] if axis + shift >= 0 else 1) for axis, size in enumerate(sizes)])


@op("reshape_like")
def reshape_like(call: Call) -> Results:
    """The shape is put together from ranges of other tensors' shapes."""
    sizes: list[int] = []
    ranges = zip(call.many("ref_tensors"), call.many("begins"), call.many("ends"), call.many("end_masks"), strict=True)
    for reference, begin, end, to_the_end in ranges:
        stop = None if bool(to_the_end) else int(end)
        sizes += list(reference.shape)[int(begin) : stop]
    return call.raw("x").reshape(sizes)


@op("expand_dims")
def expand_dims(call: Call) -> Results:
    """Insert axes of size 1; axes count in the result."""
    x, axes = call.raw("x"), call.integers("axes")
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@op("squeeze")
def squeeze(call: Call) -> Results:
    """Remove axes of size 1, all or the given ones."""
    x = call.raw("x")
    if not call.has("axes"):
        return x.squeeze()
    axes = [axis % x.dim() for axis in call.integers("axes")]
    if any(x.shape[axis] != 1 for axis in axes):
        raise call.wrong(f"squeeze of axes {axes} of {list(x.shape)}")
    return x.squeeze(axes)


@op("transpose")
def transpose(call: Call) -> Results:
    """Permute axes."""
    return call.raw("x").permute(call.integers("perm"))


@op("flatten2d")
def flatten2d(call: Call) -> Results:
    """Flatten to two axes, cut before ``axis``."""
    x, axis = call.raw("x"), call.integer("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    rows = 1
    for size in x.shape[:axis]:
        rows *= size
    return x.reshape(rows, -1)
