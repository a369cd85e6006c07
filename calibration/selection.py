"""`auto`: per tensor, the method whose range loses least on samples that it did not see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgedeploy.calibration.methods.method import Distribution, Method, methods
from edgedeploy.calibration.noise import sqnr_db
from edgedeploy.calibration.options import CalibrationOptions
from edgedeploy.calibration.ranges import Range, safe_range
from edgedeploy.calibration.scheme import IntegerFormat
from edgedeploy.calibration.statistics import TensorStatistics

#: What a fold counts as where nothing at all is lost; more than 16 bits can give.
LOSSLESS_DB = 150.0


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
    """Cross-validate: fit every method without each fold, measure it on that fold, take the best mean in dB.

    The mean of decibels, rather than of errors, keeps one fold with a rare outlier from deciding for all of them.
    Ties go to the first in `methods`. With one fold, methods are compared on the data they were fitted to.
    """
    bounds = safe_range(statistics.minimum, statistics.maximum)
    if statistics.histogram.counts.size == 0 or statistics.is_constant:
        return Choice("minmax", dict.fromkeys(methods(), sqnr_db(statistics.histogram, bounds, fmt)))
    measured: dict[str, list[float]] = {name: [] for name in methods()}
    for index, fold in enumerate(statistics.folds):
        if not fold.counts.size:
            continue
        others = statistics.without(index)
        seen = safe_range(*others.extremes)
        for name, method in methods().items():
            found = method(Distribution(others, seen), fmt, options) if others.counts.size else seen
            measured[name].append(min(sqnr_db(fold, safe_range(found.low, found.high), fmt), LOSSLESS_DB))
    means = {name: sum(values) / len(values) for name, values in measured.items()}
    return Choice(max(means, key=lambda name: means[name]), means)
