"""How a stored tensor's axes relate to the source graph's, and what becomes of them in a reshape.

A layout is the tuple of source axes in stored order: ``(0, 2, 3, 1)`` is NHWC storage of an NCHW tensor, and
`UNIT` stands for an inserted axis of size 1 (a 1-D convolution is stored with height 1). Transposes of the source
graph only change layouts; data moves where an operator needs it in another order.
"""

from __future__ import annotations

from collections.abc import Sequence

Layout = tuple[int, ...]

UNIT = -1


def identity(rank: int) -> Layout:
    """The source's own order."""
    return tuple(range(rank))


def channels_last(rank: int) -> Layout:
    """Batch first, channels last; one axis is inserted for a 1-D signal so that 2-D kernels take it."""
    if rank == 3:
        return (0, UNIT, 2, 1)
    return (0, *range(2, rank), 1)


def stored_shape(shape: Sequence[int], layout: Layout) -> tuple[int, ...]:
    """The shape in storage."""
    return tuple(1 if axis == UNIT else shape[axis] for axis in layout)


def significant(shape: Sequence[int], layout: Layout) -> Layout:
    """The stored order of those axes that are larger than 1: equal ones mean equal bytes."""
    return tuple(axis for axis in layout if axis != UNIT and shape[axis] != 1)


def transposed(layout: Layout, permutation: Sequence[int]) -> Layout:
    """The layout of ``Transpose(tensor, permutation)`` if no data moves."""
    place = {axis: index for index, axis in enumerate(permutation)}
    return tuple(UNIT if axis == UNIT else place[axis] for axis in layout)


Group = tuple[tuple[int, ...], tuple[int, ...]]


def reshape_groups(before: Sequence[int], after: Sequence[int]) -> list[Group]:
    """Split a reshape into the smallest runs of axes that hold the same elements.

    Axes of size 1 belong to no group. ``(2, 3, 4) → (6, 4)`` gives ``[((0, 1), (0,)), ((2,), (1,))]``.
    """
    left = [axis for axis, size in enumerate(before) if size != 1]
    right = [axis for axis, size in enumerate(after) if size != 1]
    groups: list[Group] = []
    while left and right:
        ours, theirs = [left.pop(0)], [right.pop(0)]
        mine, yours = before[ours[0]], after[theirs[0]]
        while mine != yours:
            if mine < yours:
                ours.append(left.pop(0))
                mine *= before[ours[-1]]
            else:
                theirs.append(right.pop(0))
                yours *= after[theirs[-1]]
        groups.append((tuple(ours), tuple(theirs)))
    return groups


def through_reshape(before: Sequence[int], after: Sequence[int], layout: Layout) -> tuple[Layout, Layout]:
    """How a reshape goes through a layout.

    Returns:
        The layout that the input must have (its own, where no data needs to move) and the layout of the output.
    """
    groups = reshape_groups(before, after)
    order = [axis for axis in layout if axis != UNIT and before[axis] != 1]
    by_first = sorted(groups, key=lambda group: min(order.index(axis) for axis in group[0]))
    needed = tuple(axis for group in by_first for axis in group[0])
    result = tuple(axis for group in by_first for axis in group[1])
    small = [axis for axis, size in enumerate(after) if size == 1]
    return (layout if needed == tuple(order) else _with_units(before, needed)), _place_units(result, small, len(after))


def _with_units(shape: Sequence[int], order: Layout) -> Layout:
    return _place_units(order, [axis for axis, size in enumerate(shape) if size == 1], len(shape))


def _place_units(order: Layout, small: Sequence[int], rank: int) -> Layout:
    """Put axes of size 1 back: at their own place if the rest is in order, else batch first and the others last."""
    if list(order) == sorted(order):
        return identity(rank)
    leading = tuple(axis for axis in small if axis == 0)
    return (*leading, *order, *(axis for axis in small if axis != 0))
