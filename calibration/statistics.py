"""What calibration knows of one tensor, and the builder that gathers it without regard to order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedeploy.calibration.exact_sum import ExactSum
from edgedeploy.calibration.histogram import EXTREME, Histogram, HistogramBuilder, merged

Vector = NDArray[np.float64]

#: From this magnitude on, float32 sums of squares could overflow.
_WIDE = 2.0**50


@dataclass(frozen=True)
class ChannelStatistics:
    """Per channel along ``axis``: float64 vectors of shape (channels,)."""

    axis: int
    minimum: Vector
    maximum: Vector
    mean: Vector
    second_moment: Vector


@dataclass(frozen=True)
class TensorStatistics:
    """What one tensor held over the calibration data.

    Attributes:
        name: the tensor.
        count: finite values seen.
        extreme: infinite values and those of magnitude 2^96 or more (mask fillers, overflow); in nothing else here.
        minimum, maximum: exact; 0 where the tensor held no finite value.
        mean, second_moment: averages of x and of x^2 over all finite values.
        folds: the values, parted by sample; each part in turn is held back to compare threshold methods.
        channels: the same per channel, where the tensor has a channel axis.
    """

    name: str
    count: int
    extreme: int
    minimum: float
    maximum: float
    mean: float
    second_moment: float
    folds: tuple[Histogram, ...]
    channels: ChannelStatistics | None

    @cached_property
    def histogram(self) -> Histogram:
        """All values."""
        return merged(self.folds)

    def without_fold(self, fold: int) -> TensorStatistics:
        """The same tensor as if one fold's samples had not been there; extremes to within a bin, moments unchanged."""
        others = self.without(fold)
        low, high = others.extremes if others.counts.size else (self.minimum, self.maximum)
        rest = tuple(item for index, item in enumerate(self.folds) if index != fold)
        return replace(self, minimum=max(low, self.minimum), maximum=min(high, self.maximum), folds=rest or self.folds)

    def without(self, fold: int) -> Histogram:
        """All values but one fold's; all, where there is only one fold."""
        return self.histogram.without(self.folds[fold]) if len(self.folds) > 1 else self.histogram

    @property
    def is_constant(self) -> bool:
        """True where every value was the same."""
        return self.minimum == self.maximum


class StatisticsBuilder:
    """Gathers one tensor's statistics; every part is exact, so neither order nor grouping of samples matters."""

    def __init__(self, name: str, axis: int | None, folds: int = 1) -> None:
        self.name = name
        self._axis = axis
        self._channels = 0
        self._folds = [HistogramBuilder() for _ in range(folds)]
        self._count = 0

    def add(self, values: NDArray[np.float32], folds: Sequence[int]) -> int | None:
        """Take the tensor of several samples, fewer than 2^14, or nothing where one of them holds a NaN.

        Args:
            values: shape (samples, *tensor shape).
            folds: of each sample; those of one fold stand together.

        Returns:
            The first sample with a NaN, if there is one.
        """
        if values.size == 0:
            return None
        values = np.ascontiguousarray(values)
        rows, reduced = _channel_rows(values, self._axis)
        low, high = rows.min(axis=reduced), rows.max(axis=reduced)
        with_nan = np.isnan(low).any(axis=1)
        if with_nan.any():
            return int(with_nan.argmax())
        for fold in dict.fromkeys(folds):
            start = folds.index(fold)
            self._folds[fold].add(values[start : start + folds.count(fold)])
        large = np.maximum(-low.min(axis=1), high.max(axis=1)) >= _WIDE
        if large.any():
            kept = np.where(np.abs(rows[large]) < EXTREME, rows[large], 0).astype(np.float64)
            self._take(kept, reduced, kept.min(axis=reduced), kept.max(axis=reduced))
            rows, low, high = rows[~large], low[~large], high[~large]
        if len(rows):
            self._take(rows, reduced, low, high)
        return None

    def _take(
        self,
        rows: NDArray[np.floating[Any]],
        reduced: int,
        low: NDArray[np.floating[Any]],
        high: NDArray[np.floating[Any]],
    ) -> None:
        """Add each sample's own sums, so that what else came with it cannot change them."""
        sums = rows.sum(axis=reduced, dtype=None if reduced == 2 else np.float64)
        squares = np.einsum("nij,nij->ni" if reduced == 2 else "nij,nij->nj", rows, rows)
        self._start(low.shape[1])
        np.minimum(self._low, low.min(axis=0), out=self._low)
        np.maximum(self._high, high.max(axis=0), out=self._high)
        self._sum.add(sums.astype(np.float64))
        self._squares.add(squares.astype(np.float64))
        self._count += rows.size // low.shape[1]

    def _start(self, channels: int) -> None:
        if self._channels == 0:
            self._channels = channels
            self._low = np.full(channels, np.inf)
            self._high = np.full(channels, -np.inf)
            self._sum, self._squares = ExactSum(channels), ExactSum(channels)

    def build(self) -> TensorStatistics:
        """Return the statistics of everything taken so far."""
        self._start(1)
        count = max(self._count, 1)
        low, high = np.where(np.isfinite(self._low), self._low, 0.0), np.where(np.isfinite(self._high), self._high, 0.0)
        mean, second = self._sum.value() / count, self._squares.value() / count
        extreme = sum(fold.extreme for fold in self._folds)
        minimum, maximum = float(low.min()), float(high.max())
        channels = None
        if self._axis is not None and self._count:
            channels = ChannelStatistics(self._axis, low, high, mean, second)
        return TensorStatistics(
            name=self.name,
            count=self._count * self._channels - extreme,
            extreme=extreme,
            minimum=minimum,
            maximum=maximum,
            mean=float(mean.mean()),
            second_moment=float(second.mean()),
            folds=tuple(fold.build(minimum, maximum) for fold in self._folds),
            channels=channels,
        )


def _channel_rows(values: NDArray[np.float32], axis: int | None) -> tuple[NDArray[np.float32], int]:
    """View samples as 3-D with channels on one of the last two axes, and the other one's number (the one to reduce)."""
    count, shape = values.shape[0], values.shape[1:]
    if axis is None:
        return values.reshape(count, 1, -1), 2
    if axis == len(shape) - 1:
        return values.reshape(count, -1, shape[-1]), 1
    return np.moveaxis(values, axis + 1, 1).reshape(count, shape[axis], -1), 2
