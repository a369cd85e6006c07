"""Clip a fixed share of the largest magnitudes."""

from __future__ import annotations

import numpy as np

from edgedeploy.calibration.methods.method import Distribution, clipped
from edgedeploy.calibration.options import CalibrationOptions
from edgedeploy.calibration.ranges import Range
from edgedeploy.calibration.scheme import IntegerFormat


def percentile(values: Distribution, fmt: IntegerFormat, options: CalibrationOptions) -> Range:
    """Return [-T, T] within the bounds, T the smallest bin end with P(|x| <= T) >= percentile / 100; zeros count.

    Source: Wu et al., "Integer Quantization for Deep Learning Inference", 2020, section 5.1 (99.99 % and others).
    """
    histogram = values.histogram
    magnitude = np.abs(histogram.outer)
    order = np.argsort(magnitude)
    inside = histogram.zeros + np.cumsum(histogram.counts[order])
    wanted = options.percentile * histogram.total / 100 - 0.5
    threshold = float(magnitude[order][min(int(np.searchsorted(inside, wanted)), len(order) - 1)])
    return clipped(values.bounds, -threshold, threshold)
