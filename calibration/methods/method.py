"""What a threshold method is given and what it gives back, and the list of methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edgedeploy.calibration.histogram import Histogram
from edgedeploy.calibration.options import CalibrationOptions
from edgedeploy.calibration.ranges import Range
from edgedeploy.calibration.scheme import IntegerFormat


@dataclass(frozen=True)
class Distribution:
    """Values to choose a range for.

    Attributes:
        histogram: the values; never empty of non-zero values.
        bounds: exact smallest and largest value, zero included.
    """

    histogram: Histogram
    bounds: Range


class Method(Protocol):
    """Chooses the range that a format should span; the result lies within the distribution's bounds."""

    def __call__(self, values: Distribution, fmt: IntegerFormat, options: CalibrationOptions) -> Range:
        """Return the range; ``options`` holds the percentile."""
        ...


def methods() -> dict[str, Method]:
    """Every method by name, in the order in which ties are broken."""
    from edgedeploy.calibration.methods.entropy import entropy
    from edgedeploy.calibration.methods.minmax import minmax
    from edgedeploy.calibration.methods.mse import mse
    from edgedeploy.calibration.methods.percentile import percentile

    return {"minmax": minmax, "percentile": percentile, "mse": mse, "entropy": entropy}


def clipped(bounds: Range, low: float, high: float) -> Range:
    """Intersect with the bounds."""
    return Range(max(bounds.low, min(low, 0.0)), min(bounds.high, max(high, 0.0)))
