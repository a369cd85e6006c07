"""A calibration table's statistics as three flat arrays and a description of what lies where in them.

One array a kind, since opening a member of an .npz costs as much as reading a small array: ``keys`` and ``counts`` hold
every fold's bins one after another, ``channels`` four vectors a tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedeploy.calibration.histogram import MOST_BINS, Histogram
from edgedeploy.calibration.statistics import ChannelStatistics, TensorStatistics

#: The arrays by name, with the kind of their dtype and the dtype that the statistics use.
ARRAYS: Mapping[str, tuple[str, type[np.generic]]] = {
    "keys": ("i", np.int32),
    "counts": ("u", np.int64),
    "channels": ("f", np.float64),
}

_VECTORS = ("minimum", "maximum", "mean", "second_moment")
_REALS = ("minimum", "maximum", "mean", "second_moment")
_MOST_CHANNELS = 1 << 31


def packed(tensors: Iterable[TensorStatistics]) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
    """A description of each tensor, plain enough for JSON, and `ARRAYS`; counts in their smallest type."""
    tensors = list(tensors)
    folds = [fold for statistics in tensors for fold in statistics.folds]
    channels = [statistics.channels for statistics in tensors if statistics.channels is not None]
    counts = np.concatenate([np.empty(0, np.int64), *(fold.counts for fold in folds)])
    arrays = {
        "keys": np.concatenate([np.empty(0, np.int32), *(fold.keys for fold in folds)]),
        "counts": counts.astype(np.min_scalar_type(int(counts.max(initial=0)))),
        "channels": np.concatenate([np.empty(0), *(getattr(item, name) for item in channels for name in _VECTORS)]),
    }
    return [_described(statistics) for statistics in tensors], arrays


def _described(statistics: TensorStatistics) -> dict[str, Any]:
    channels = statistics.channels
    return {
        "name": statistics.name,
        "count": statistics.count,
        "extreme": statistics.extreme,
        **{name: getattr(statistics, name) for name in _REALS},
        "bins": [fold.keys.size for fold in statistics.folds],
        "zeros": [fold.zeros for fold in statistics.folds],
        "axis": None if channels is None else channels.axis,
        "channels": 0 if channels is None else channels.mean.size,
    }


def unpacked(described: Sequence[Mapping[str, Any]], arrays: Mapping[str, NDArray[Any]]) -> dict[str, TensorStatistics]:
    """The inverse of `packed`, by tensor name.

    Raises:
        ValueError, TypeError, KeyError: the description is not one, or does not fit the arrays.
    """
    if arrays["keys"].size and not 0 <= arrays["keys"].min() <= arrays["keys"].max() < MOST_BINS:
        raise ValueError("a bin that is not on the grid")
    keys, counts, vectors = (_Slices(arrays[name], *kinds) for name, kinds in ARRAYS.items())
    tensors = {}
    for item in described:
        reals = {name: float(item[name]) for name in _REALS}
        folds = tuple(
            Histogram(
                keys.take(bins, MOST_BINS), counts.take(bins, MOST_BINS), int(zeros), reals["minimum"], reals["maximum"]
            )
            for bins, zeros in zip(item["bins"], item["zeros"], strict=True)
        )
        channels = None
        if item["axis"] is not None:
            parts = [vectors.take(item["channels"], _MOST_CHANNELS) for _ in _VECTORS]
            channels = ChannelStatistics(int(item["axis"]), *parts)
        if not folds:
            raise ValueError(f"no folds of {item['name']!r}")
        tensors[str(item["name"])] = TensorStatistics(
            str(item["name"]), int(item["count"]), int(item["extreme"]), **reals, folds=folds, channels=channels
        )
    for slices in (keys, counts, vectors):
        slices.finish()
    return tensors


class _Slices:
    """Consecutive parts of one flat array."""

    def __init__(self, array: NDArray[Any], kind: str, dtype: type[np.generic]) -> None:
        if array.ndim != 1 or array.dtype.kind != kind:
            raise ValueError(f"an array of {array.dtype} and shape {array.shape}")
        self._array: NDArray[Any] = array.astype(dtype, copy=False)
        self._used = 0

    def take(self, size: int, most: int) -> NDArray[Any]:
        start, self._used = self._used, self._used + size
        if not 0 <= size <= most or self._used > self._array.size:
            raise ValueError(f"{size} elements from {start} on, of {self._array.size}")
        return self._array[start : self._used]

    def finish(self) -> None:
        if self._used != self._array.size:
            raise ValueError(f"{self._array.size - self._used} elements that belong to no tensor")
