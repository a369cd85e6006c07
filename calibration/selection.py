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


@dataclass(frozen=True)
class Choice:
    """What `auto` chose for one tensor and format.

    Attributes:
        method: the chosen method.
        sqnr_db: of every method, measured on the held-back samples, in dB; infinite where nothing is lost.
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
    """Fit every method without the held-back samples, measure each on them, and take the best.

    Where nothing was held back (or the held-back values are all zero), all samples serve for both.
    Ties go to the first in `methods`.
    """
    fitted, held = statistics.fitted, statistics.held
    if not held.counts.size or not fitted.counts.size:
        fitted = held = statistics.histogram
    bounds = safe_range(statistics.minimum, statistics.maximum)
    measured = {}
    for name, method in methods().items():
        found = bounds
        if fitted.counts.size and not statistics.is_constant:
            found = method(Distribution(fitted, bounds), fmt, options)
        measured[name] = sqnr_db(held, safe_range(found.low, found.high), fmt)
    return Choice(max(measured, key=lambda name: measured[name]), measured)
