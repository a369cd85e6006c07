"""Parts of one output that have scales of their own: boxes in pixels beside scores below 1, metres beside radians.

A figure over a whole tensor is ruled by its largest channels. So an output is cut where the spreads of its channels
leave a gap, and each part is judged by its own spread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Below this share of its own size, a reference counts as constant over the inputs.
VACUOUS_SPREAD = 1e-3
#: Channels belong to two groups where nothing lies between a spread and one so many times larger.
GAP = 10.0
#: Shares (0 to 1) beside larger numbers are a group of their own from this ratio of spreads on.
SHARE_GAP = 16.0
#: On axes longer than this, a group holds at least `LEAST_SHARE` of the slices: of many features a few hardly move.
SHORT_AXIS, LEAST_SHARE = 32, 0.05
_DEPTH = 3


@dataclass(frozen=True)
class Moments:
    """Per element of one output, over the samples in which the reference is finite there; all of the output's shape.

    Attributes:
        count: how many samples those are.
        variance: unbiased, of the reference over the samples; 0 where fewer than two.
        square: mean square of the reference.
        low, high: extremes of the reference.
    """

    count: NDArray[np.int64]
    variance: NDArray[np.float64]
    square: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """A box-shaped part of an output: the slices ``index[axis]`` of each axis.

    Attributes:
        spread: rms deviation of the reference from its mean over the samples.
        size: rms of the reference.
    """

    index: tuple[NDArray[np.int64], ...]
    spread: float
    size: float

    @property
    def varies(self) -> bool:
        """True where the reference depends on the input by more than rounding."""
        return self.spread > VACUOUS_SPREAD * self.size

    @property
    def scale(self) -> float:
        """What errors are measured against: the spread, or the size of what does not vary."""
        return self.spread if self.varies else self.size

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """The group's elements of an array in the output's shape."""
        return values[np.ix_(*self.index)] if self.index else values

    def name(self, shape: tuple[int, ...]) -> str:
        """``""`` for the whole output, else its slices: ``"axis 1: 4-6"``."""
        parts = []
        for axis, chosen in enumerate(self.index):
            if len(chosen) < shape[axis]:
                parts.append(f"axis {axis}: {_ranges(chosen)}")
        return ", ".join(parts)


def groups_of(moments: Moments, same_kind: int | None = None) -> tuple[Group, ...]:
    """Cut an output into its groups; one where nothing speaks for more.

    Args:
        moments: of the reference.
        same_kind: an axis of the output whose slices are all of one kind (classes) and stay together.
    """
    index = tuple(np.arange(size) for size in moments.count.shape)
    return tuple(_split(moments, index, same_kind, _DEPTH))


def mean_over(values: NDArray[np.float64], valid: NDArray[np.bool_], axis: int | None = None) -> NDArray[np.float64]:
    """Mean of the valid elements of each slice of an axis (of all, without one); 0 where none is valid."""
    others = None if axis is None else tuple(place for place in range(values.ndim) if place != axis)
    total = np.where(valid, values, 0.0).sum(axis=others)
    count = valid.sum(axis=others)
    return np.asarray(total / np.maximum(count, 1), np.float64)


def _split(
    moments: Moments, index: tuple[NDArray[np.int64], ...], same_kind: int | None, depth: int
) -> Iterator[Group]:
    group = _group(moments, index)
    cut = max(_cuts(moments, group, same_kind), key=lambda item: item[0], default=None) if depth else None
    if cut is None:
        yield group
        return
    _, axis, inside = cut
    for chosen in (index[axis][inside], index[axis][~inside]):
        yield from _split(moments, (*index[:axis], chosen, *index[axis + 1 :]), same_kind, depth - 1)


def _group(moments: Moments, index: tuple[NDArray[np.int64], ...]) -> Group:
    part = Group(index, 0.0, 0.0)
    valid = part.of(moments.count) > 0
    spread = float(np.sqrt(mean_over(part.of(moments.variance), valid)))
    return Group(index, spread, float(np.sqrt(mean_over(part.of(moments.square), valid))))


def _cuts(moments: Moments, group: Group, same_kind: int | None) -> Iterator[tuple[float, int, NDArray[np.bool_]]]:
    """(ratio of the spreads, axis, which of its slices form the one side), for every axis that can be cut."""
    valid = group.of(moments.count) > 0
    variance, square = group.of(moments.variance), group.of(moments.square)
    low = np.where(valid, group.of(moments.low), np.inf)
    high = np.where(valid, group.of(moments.high), -np.inf)
    for axis in range(valid.ndim):
        length = valid.shape[axis]
        if length < 2 or axis == same_kind:
            continue
        others = tuple(place for place in range(valid.ndim) if place != axis)
        spread = np.sqrt(mean_over(variance, valid, axis))
        size = np.sqrt(mean_over(square, valid, axis))
        live = spread > VACUOUS_SPREAD * size
        if not live.any():
            continue
        least = 1 if length <= SHORT_AXIS else max(1, int(np.ceil(LEAST_SHARE * length)))
        typical = _rms(spread[live])
        constant = ~live & (size > typical)
        if constant.any():
            yield float(size[constant].max() / typical), axis, constant
            continue
        shares = (low.min(axis=others) >= 0.0) & (high.max(axis=others) <= 1.0)
        if shares[live].all():
            continue
        cut = _by_kind(spread, live, shares) if shares[live].any() else None
        cut = cut or _by_gap(spread, live, least)
        if cut is not None and min(cut[1].sum(), (~cut[1]).sum()) >= least:
            yield cut[0], axis, cut[1]


def _by_kind(
    spread: NDArray[np.float64], live: NDArray[np.bool_], shares: NDArray[np.bool_]
) -> tuple[float, NDArray[np.bool_]] | None:
    ratio = _rms(spread[live & ~shares]) / _rms(spread[live & shares])
    return (ratio, shares) if ratio >= SHARE_GAP else None


def _by_gap(spread: NDArray[np.float64], live: NDArray[np.bool_], least: int) -> tuple[float, NDArray[np.bool_]] | None:
    """Cut at the widest gap that leaves enough slices on both sides."""
    ordered = np.sort(spread[live])
    places = np.arange(least, len(ordered) - least + 1)
    if len(places) == 0:
        return None
    ratios = ordered[places] / ordered[places - 1]
    widest = int(ratios.argmax())
    if ratios[widest] < GAP:
        return None
    return float(ratios[widest]), live & (spread < ordered[places[widest]])


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _ranges(numbers: NDArray[np.int64]) -> str:
    """``"0-3, 7"``; the first few where there are many."""
    runs: list[list[int]] = []
    for number in numbers.tolist():
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    parts = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    return ", ".join(parts[:4]) + (", …" if len(parts) > 4 else "")
