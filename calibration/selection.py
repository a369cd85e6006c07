"""`auto`: per tensor, the method whose range loses least on samples that it did not see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgedeploy.calibration.methods.method import Distribution, Method, methods
from edgedeploy.calibration.noise import decibels, noise, sqnr_db
from edgedeploy.calibration.options import CalibrationOptions
from edgedeploy.calibration.ranges import Range, affine, safe_range
from edgedeploy.calibration.scheme import IntegerFormat
from edgedeploy.calibration.statistics import TensorStatistics


@dataclass(frozen=True)
class Choice:
    """What `auto` chose for one tensor and format.

    Attributes:
        method: the chosen method.
        sqnr_db: of every method, measured on samples it was not fitted to, in dB; infinite where nothing is lost.
    """

    method: str
    sqnr_db: Mapping[str, float]


def range_by(method: Method, statistics: TensorStatistics, fmt: IntegerFormat, options: CalibrationOptions) -> Range:
    """Let one method choose from all samples; a tensor without information gets the safe range."""
    bounds = safe_range(statistics.minimum, statistics.maximum)
    if statistics.histogram.counts.size == 0 or statistics.is_constant:
        return bounds
    found = method(Distribution(statistics.histogram, bounds), fmt, options)
    return safe_range(found.low, found.high)


def choose(statistics: TensorStatistics, fmt: IntegerFormat, options: CalibrationOptions) -> Choice:
    """Cross-validate: fit every method without each fold, measure it on that fold, and take the best over all folds.

    Signal and error are added over the folds, so that every sample counts once and on data its range did not see.
    Ties go to the first in `methods`. With one fold, methods are compared on the data they were fitted to.
    """
    bounds = safe_range(statistics.minimum, statistics.maximum)
    empty = statistics.histogram.counts.size == 0
    if empty or statistics.is_constant:
        return Choice("minmax", dict.fromkeys(methods(), sqnr_db(statistics.histogram, bounds, fmt)))
    errors = dict.fromkeys(methods(), 0.0)
    for index, fold in enumerate(statistics.folds):
        others = statistics.without(index)
        seen = safe_range(*others.extremes)
        for name, method in methods().items():
            found = method(Distribution(others, seen), fmt, options) if others.counts.size else seen
            grid = affine(safe_range(found.low, found.high), fmt)
            errors[name] += float(noise(fold, [grid])[0]) * fold.total
    signal = statistics.histogram.energy * statistics.histogram.total
    measured = {name: decibels(signal, error) for name, error in errors.items()}
    return Choice(max(measured, key=lambda name: measured[name]), measured)
