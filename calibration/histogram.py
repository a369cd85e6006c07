"""`Histogram`: counts of signed float32 values on an absolute grid, the same for any order of the data.

The bins are float32's own: the sign, the exponent and the leading 8 mantissa bits of a value, as in HdrHistogram.
256 bins an octave make a bin at most 1/256 of its value wide. The grid needs no range, so nothing depends on which
value came first, values of any magnitude have a bin, and filling one is a shift and a count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

MANTISSA_BITS = 8
PER_OCTAVE = 1 << MANTISSA_BITS
_SHIFT = 23 - MANTISSA_BITS
_SIGN = 256 * PER_OCTAVE

#: Bins that a histogram can have.
MOST_BINS = 2 * _SIGN

#: Values of this magnitude or more are not activations but mask fillers or overflow; they are counted apart.
EXTREME = 2.0**96

#: Bins of the grid in one bin of a coarse histogram.
_COARSER = 4

#: A bin that holds a single value, as far as is known, is this wide relative to it.
_NARROWEST = 2.0**-20

#: Below this many values sorting beats clearing a table of every bin.
_FEW = 1 << 12


@dataclass(frozen=True)
class Histogram:
    """Counts per bin of the absolute grid, only bins that hold something.

    Attributes:
        keys: int32, the leading bits of the values in each bin (sign, exponent, mantissa), ascending.
        counts: int64, values in each bin.
        zeros: values that are zero (or denormal), which every number format represents exactly.
        low, high: no value lies beyond these; they cut the outermost bins short.
        width: of a bin, in steps of the absolute grid.
    """

    keys: NDArray[np.int32]
    counts: NDArray[np.int64]
    zeros: int = 0
    low: float = -np.inf
    high: float = np.inf
    width: int = 1

    @property
    def total(self) -> int:
        """Number of values, zeros included."""
        return int(self.counts.sum()) + self.zeros

    @cached_property
    def inner(self) -> NDArray[np.float64]:
        """The end of each bin that is nearer to zero, with its sign."""
        return _bin_end(self.keys, 0)

    @cached_property
    def outer(self) -> NDArray[np.float64]:
        """The end of each bin that is farther from zero, with its sign; never as near as the inner end."""
        cut = np.clip(_bin_end(self.keys, self.width), self.low, self.high)
        nearest = self.inner * (1 + _NARROWEST)
        return np.where(np.abs(cut) < np.abs(nearest), nearest, cut)

    @cached_property
    def energy(self) -> float:
        """Mean square of all values, each bin taken as uniform."""
        inner, outer = self.inner, self.outer
        squares = (inner * inner + inner * outer + outer * outer) / 3
        return float(self.counts @ squares) / max(self.total, 1)

    def without(self, part: Histogram) -> Histogram:
        """Take away the counts of a part of these values."""
        counts = self.counts.copy()
        counts[np.searchsorted(self.keys, part.keys)] -= part.counts
        left = counts > 0
        return replace(self, keys=self.keys[left], counts=counts[left], zeros=self.zeros - part.zeros)

    @property
    def extremes(self) -> tuple[float, float]:
        """Ends of the lowest and the highest bin; (0, 0) where all values are zero."""
        if not self.counts.size:
            return 0.0, 0.0
        return float(min(self.outer.min(), self.inner.min())), float(max(self.outer.max(), self.inner.max()))

    @cached_property
    def coarse(self) -> Histogram:
        """The same values in bins four times as wide, for searches that weigh many candidates."""
        keys, starts = np.unique(self.keys // _COARSER, return_index=True)
        counts = np.add.reduceat(self.counts, starts) if starts.size else self.counts
        return replace(self, keys=keys * _COARSER, counts=counts, width=_COARSER)


def merged(histograms: Sequence[Histogram]) -> Histogram:
    """Add the counts of several histograms; at least one."""
    totals = np.zeros(1 + max(int(histogram.keys.max(initial=-1)) for histogram in histograms), np.int64)
    for histogram in histograms:
        totals[histogram.keys] += histogram.counts
    keys = np.flatnonzero(totals)
    zeros = sum(histogram.zeros for histogram in histograms)
    low, high = min(histogram.low for histogram in histograms), max(histogram.high for histogram in histograms)
    return Histogram(keys.astype(np.int32), totals[keys], zeros, low, high)


def _bin_end(keys: NDArray[np.int32], step: int) -> NDArray[np.float64]:
    magnitude = (keys % _SIGN + step).astype(np.uint32) << np.uint32(_SHIFT)
    return np.where(keys >= _SIGN, -1.0, 1.0) * magnitude.view(np.float32)


@dataclass
class HistogramBuilder:
    """Counts values into octaves of bins; addition of integers, so order cannot matter.

    Attributes:
        octaves: counts of shape (256,) by octave: float32's sign and exponent bits as one number.
        zeros: values equal to zero.
        extreme: infinite values and those of magnitude 2^96 or more, left out of the bins.
    """

    octaves: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    zeros: int = 0
    extreme: int = 0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count a contiguous float32 array of any shape, free of NaN."""
        if values.size == 0:
            return
        keys = np.empty(values.size, np.int64)
        np.right_shift(values.reshape(-1).view(np.uint32), _SHIFT, out=keys, casting="unsafe")
        if keys.size < _FEW:
            unique, counts = np.unique(keys, return_counts=True)
            octaves, starts = np.unique(unique >> MANTISSA_BITS, return_index=True)
            rows = np.zeros((octaves.size, PER_OCTAVE), np.int64)
            rows[np.repeat(np.arange(octaves.size), np.diff(starts, append=unique.size)), unique % PER_OCTAVE] = counts
        else:
            table = np.bincount(keys, minlength=int(keys.max() | (PER_OCTAVE - 1)) + 1).reshape(-1, PER_OCTAVE)
            octaves = np.flatnonzero(table.any(axis=1))
            rows = table[octaves]
        for octave, row in zip(octaves.tolist(), rows, strict=True):
            self._add_octave(octave, row)

    def build(self, low: float = -np.inf, high: float = np.inf) -> Histogram:
        """Return the filled bins; ``low`` and ``high`` are bounds of the values, where they are known."""
        octaves = sorted(self.octaves)
        if not octaves:
            return Histogram(np.empty(0, np.int32), np.empty(0, np.int64), self.zeros, low, high)
        counts = np.concatenate([self.octaves[octave] for octave in octaves])
        keys = (np.array(octaves)[:, None] * PER_OCTAVE + np.arange(PER_OCTAVE)).reshape(-1)
        filled = counts > 0
        return Histogram(keys[filled].astype(np.int32), counts[filled], self.zeros, low, high)

    def _add_octave(self, octave: int, row: NDArray[np.int64]) -> None:
        exponent = octave % 256
        if exponent == 0:  # zeros and denormals
            self.zeros += int(row.sum())
        elif exponent >= 127 + 96:
            self.extreme += int(row.sum())
        else:
            held = self.octaves.setdefault(octave, row)
            if held is not row:
                held += row
