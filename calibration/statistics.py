"""What calibration knows of one tensor, and the builder that gathers it without regard to order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgedeploy.calibration.exact_sum import ExactSum
from edgedeploy.calibration.histogram import EXTREME, Histogram, HistogramBuilder, merged

Vector = NDArray[np.float64]


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
    """Gathers one tensor's statistics sample by sample; every part is exact, so order cannot matter."""

    def __init__(self, name: str, axis: int | None, folds: int = 1) -> None:
        self.name = name
        self._axis = axis
        self._channels = 0
        self._folds = [HistogramBuilder() for _ in range(folds)]
        self._count = 0

    def add(self, values: NDArray[np.float32], fold: int = 0) -> bool:
        """Take one sample's tensor; returns False, and takes nothing, where it holds a NaN."""
        rows, reduced = _channel_rows(values, self._axis)
        if values.size == 0:
            return True
        low, high = values_range(rows, reduced)
        if np.isnan(low).any():
            return False
        self._folds[fold].add(np.ascontiguousarray(values))
        magnitude = max(-float(low.min()), float(high.max()))
        per_channel = rows.size // low.size
        if magnitude >= EXTREME:
            rows = np.where(np.abs(rows) < EXTREME, rows, 0)
            low, high = values_range(rows, reduced)
        wide = rows.astype(np.float64) if magnitude >= 2.0**50 else rows
        sums = wide.sum(axis=reduced, dtype=None if reduced == 1 else np.float64)
        squares = np.einsum("ij,ij->i" if reduced == 1 else "ij,ij->j", wide, wide)
        self._start(low.size)
        np.minimum(self._low, low, out=self._low)
        np.maximum(self._high, high, out=self._high)
        self._sum.add(sums.astype(np.float64))
        self._squares.add(squares.astype(np.float64))
        self._count += per_channel
        return True

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


def values_range(rows: NDArray[np.float32], axis: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Minimum and maximum along ``axis``; NaN where a NaN is."""
    return rows.min(axis=axis), rows.max(axis=axis)


def _channel_rows(values: NDArray[np.float32], axis: int | None) -> tuple[NDArray[np.float32], int]:
    """View as 2-D with channels on one axis, and the other axis's number (the one to reduce)."""
    if axis is None:
        return values.reshape(1, -1), 1
    if axis == values.ndim - 1:
        return values.reshape(-1, values.shape[-1]), 0
    if values.shape[0] == 1 and axis == 1:
        return values.reshape(values.shape[1], -1), 1
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1), 1
