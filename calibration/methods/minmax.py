"""The whole range: no value is clipped, and one outlier can cost every other value its resolution."""

from __future__ import annotations

from edgedeploy.calibration.methods.method import Distribution
from edgedeploy.calibration.options import CalibrationOptions
from edgedeploy.calibration.ranges import Range
from edgedeploy.calibration.scheme import IntegerFormat


def minmax(values: Distribution, fmt: IntegerFormat, options: CalibrationOptions) -> Range:
    """Return [min x, max x].

    Source: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018, section 2.
    """
    return values.bounds
