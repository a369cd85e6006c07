"""`auto`: per tensor, the range that is expected to lose least on data that resemble the calibration data.

What new data will hold is modelled, not known: half of the calibration samples, every half in turn, and their values up
to `SPREAD` octaves larger or smaller, for a range must not hinge on where the rarest values happened to lie. In each
such future a candidate's regret is how many dB it gives less than the best candidate there; the least mean square
regret over all futures wins.

The candidates are the ranges themselves, not ranges fitted without the samples they are judged on: a range has one or
two parameters and hundreds of thousands of values, whereas a fit without some samples is another range, whose luck
with a rare value would decide. On heavy-tailed data that costs more than it guards against
(`benchmarks/calibration_outliers.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from edgedeploy.calibration.methods.method import Distribution, Method
from edgedeploy.calibration.methods.minmax import minmax
from edgedeploy.calibration.noise import decibels, sqnr_db, squared_errors
from edgedeploy.calibration.options import CalibrationOptions
from edgedeploy.calibration.ranges import Range, affine, safe_range
from edgedeploy.calibration.scheme import IntegerFormat
from edgedeploy.calibration.statistics import TensorStatistics

#: How much larger or smaller new values may be, in octaves: 9 %.
SPREAD = 1 / 8
_SCALES = 2.0 ** (np.arange(-2, 3) / 2 * SPREAD)

#: As many ranges are tried between those of every two methods, evenly spaced in octaves.
_BETWEEN = 7

#: An error below this share of the signal counts as none: more than 16 bits can give (150 dB).
_LOSSLESS = 1e-15


@dataclass(frozen=True)
class Choice:
    """What `auto` chose for one tensor and format.

    Attributes:
        method: the method that gave the range, or the nearest of the two that it lies between.
        values: the range.
        sqnr_db: of every method over all calibration samples, in dB; infinite where nothing is lost.
    """

    method: str
    values: Range
    sqnr_db: Mapping[str, float]


def range_by(method: Method, statistics: TensorStatistics, fmt: IntegerFormat, options: CalibrationOptions) -> Range:
    """Let one method choose from all samples; a tensor without information gets the safe range."""
    bounds = safe_range(statistics.minimum, statistics.maximum)
    if method is minmax or _uninformative(statistics):
        return bounds  # without adding the folds up
    found = method(Distribution(statistics.histogram, bounds), fmt, options)
    return safe_range(found.low, found.high)


def choose(statistics: TensorStatistics, fmt: IntegerFormat, own: Mapping[str, Range]) -> Choice:
    """Take the range with the least regret, a method's (``own``) or one between two; ties go to the first."""
    bounds = safe_range(statistics.minimum, statistics.maximum)
    if _uninformative(statistics):
        return Choice("minmax", bounds, dict.fromkeys(own, sqnr_db(statistics.histogram, bounds, fmt)))
    candidates = list(own.items())
    for (name, one), (other_name, other) in combinations(own.items(), 2):
        for step in range(1, _BETWEEN + 1):
            share = step / (_BETWEEN + 1)
            candidates.append((name if share <= 0.5 else other_name, _between(one, other, share)))
    errors = _errors(statistics, [values for _, values in candidates], fmt)
    energy = statistics.histogram.energy * statistics.histogram.total
    best = int(np.argmin(_regret(np.maximum(errors, _LOSSLESS * energy))))
    seen = errors[:, :, len(_SCALES) // 2].sum(axis=0).tolist()
    known = {name: decibels(energy, error) for name, error in zip(own, seen, strict=False)}
    return Choice(*candidates[best], known)


def _between(one: Range, other: Range, share: float) -> Range:
    return Range(-((-one.low) ** (1 - share) * (-other.low) ** share), one.high ** (1 - share) * other.high**share)


def _uninformative(statistics: TensorStatistics) -> bool:
    return statistics.is_constant or not any(fold.counts.size for fold in statistics.folds)


def _errors(statistics: TensorStatistics, ranges: list[Range], fmt: IntegerFormat) -> NDArray[np.float64]:
    """Squared errors of every fold, range and scale of the values, in units of the scaled values' energy.

    Values twice as large under a grid lose what the values at hand lose under a grid half as wide, times four.
    """
    grids = [affine(values, fmt) for values in ranges]
    scaled = [replace(grid, scale=grid.scale / scale) for grid in grids for scale in _SCALES.tolist()]
    folds = [fold for fold in statistics.folds if fold.counts.size]
    return squared_errors(statistics.histogram, folds, scaled).reshape(len(folds), len(grids), len(_SCALES))


def _regret(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean square regret in dB^2 of each candidate over all halves of the folds and all scales."""
    folds = len(errors)
    halves = np.array([[fold in half for fold in range(folds)] for half in combinations(range(folds), -(-folds // 2))])
    levels = 10 * np.log10(np.einsum("hf,fcs->hcs", halves.astype(float), errors))
    regret: NDArray[np.float64] = ((levels - levels.min(axis=1, keepdims=True)) ** 2).mean(axis=(0, 2))
    return regret
