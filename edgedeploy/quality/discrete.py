"""Integers and booleans: class numbers, token ids, flags. They are right or wrong, not nearly right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Up to so many different values the best constant is counted exactly; beyond, the first sample stands for it.
_COUNTED_VALUES = 256
_WORST_SHARE = 0.01
#: A sample of fewer elements may be wrong as a whole by a near tie; fewer errors in a slice say nothing of the slice.
_MANY_ELEMENTS, _FEW = 8, 3
#: From so many samples on, an element that is wrong in most of them is told.
_MANY_SAMPLES = 8


@dataclass(frozen=True)
class Discrete:
    """An integer or boolean output against the reference.

    Attributes:
        identical: share of equal elements.
        constant: the share that the best constant of each position would reach; 1 where the reference never changes.
        max_abs_error: largest difference.
        worst_samples: numbers of the worst 1 % of the samples, worst first.
        dead: what is no better than a constant, or a sample that is mostly wrong; "" where nothing is.
    """

    identical: float
    constant: float
    max_abs_error: float
    worst_samples: tuple[int, ...]
    dead: str


def compare_discrete(reference: NDArray[Any], output: NDArray[Any]) -> Discrete:
    """Compare arrays of shape (samples, …), sample by sample."""
    count = len(output)
    equal = np.zeros(reference.shape[1:], np.int64)
    shares, worst = [], 0.0
    for want, got in zip(reference, output, strict=True):
        same = want == got
        equal += same
        shares.append(float(np.mean(same)) if same.size else 1.0)
        worst = max(worst, float(np.max(np.abs(want.astype(float) - got.astype(float)), initial=0.0)))
    order = np.argsort(shares, kind="stable")[: math.ceil(_WORST_SHARE * count)]
    best = _best_constants(reference)
    dead = _dead_slice(count - equal, count - best)
    if not dead and count >= _MANY_SAMPLES and equal.size and 2 * int(equal.min()) < count:
        place = tuple(int(axis) for axis in np.unravel_index(int(equal.argmin()), equal.shape))
        dead = f"element {place} is wrong in {count - int(equal.min())} of {count} samples"
    if not dead and equal.size >= _MANY_ELEMENTS and shares[order[0]] < 0.5:
        dead = f"sample {order[0]}: {shares[order[0]]:.0%} of its elements are right"
    constant = float(best.mean() / count) if best.size else 1.0
    return Discrete(float(np.mean(shares)), constant, worst, tuple(int(place) for place in order), dead)


def _best_constants(reference: NDArray[Any]) -> NDArray[np.int64]:
    """For every position, in how many samples its most frequent value occurs."""
    values: set[int] = set()
    best = np.zeros(reference.shape[1:], np.int64)
    for sample in reference:
        values.update(np.unique(sample).tolist())
        if len(values) > _COUNTED_VALUES:
            return np.asarray(sum((sample == reference[0]).astype(np.int64) for sample in reference), np.int64)
    for value in sorted(values):
        best = np.maximum(best, sum((sample == value).astype(np.int64) for sample in reference))
    return best


def _dead_slice(wrong: NDArray[np.int64], changes: NDArray[np.int64]) -> str:
    """Where more than half of what a constant would miss is missed, in the whole output or in a slice of an axis.

    Args:
        wrong: by position, in how many samples the artefact is wrong.
        changes: in how many the best constant would be.
    """
    if changes.sum() and 2 * wrong.sum() > changes.sum():
        return "nearer to a constant than to the reference"
    for axis in range(wrong.ndim):
        others = tuple(place for place in range(wrong.ndim) if place != axis)
        missed, possible = wrong.sum(others), changes.sum(others)
        # A few near ties may fall together in one slice: they are no dead channel.
        dead = (2 * missed > possible) & (missed >= _FEW)
        if wrong.shape[axis] > 1 and dead.any():
            return f"axis {axis}: {int(dead.argmax())} is nearer to a constant than to the reference"
    return ""
