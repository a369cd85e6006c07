"""The error that rounding to codes causes, computed from a histogram."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgedeploy.calibration.histogram import Histogram
from edgedeploy.calibration.ranges import Affine, Range, affine
from edgedeploy.calibration.scheme import IntegerFormat

#: Candidates that are evaluated at once; keeps the working arrays in the cache.
_CHUNK = 8


def noise(histogram: Histogram, grids: list[Affine]) -> NDArray[np.float64]:
    """Mean squared error of each grid over the histogram's values, shape (grids,)."""
    errors: NDArray[np.float64] = squared_errors(histogram, [histogram], grids)[0] / max(histogram.total, 1)
    return errors


def squared_errors(whole: Histogram, parts: Sequence[Histogram], grids: Sequence[Affine]) -> NDArray[np.float64]:
    """Sum of squared errors of each grid over each part of a histogram's values, shape (parts, grids).

    Values are taken as uniform within their bin, over which the error is integrated exactly. With k the nearest code
    (clipped) and r = x - k s, the integral of (t - q(t))^2 from 0 to x is k s^3 / 12 + r^3 / 3: each cell passed
    in full adds s^3 / 12, and beyond the last code r grows without a cell to end it.

    Args:
        whole: all values.
        parts: some of them each, in the same bins.
        grids: what the values are rounded to.
    """
    results = np.zeros((len(parts), len(grids)))
    if not whole.counts.size:
        return results
    counts = np.zeros((len(parts), whole.counts.size))
    for row, part in zip(counts, parts, strict=True):
        row[np.searchsorted(whole.keys, part.keys)] = part.counts
    density = counts / (whole.outer - whole.inner)  # negative bins run backwards: signs cancel
    # Most bins end where the next one begins.
    edges, places = np.unique(np.concatenate([whole.outer, whole.inner]), return_inverse=True)
    outer, inner = places[: whole.counts.size], places[whole.counts.size :]
    for start in range(0, len(grids), _CHUNK):
        chunk = grids[start : start + _CHUNK]
        columns = np.array([[g.scale, g.qmin - g.zero_point, g.qmax - g.zero_point] for g in chunk]).T[:, :, None]
        until = _integral(edges, *columns)
        integral = until[:, outer] - until[:, inner]
        results[:, start : start + len(chunk)] = density @ integral.T
    return np.maximum(results, 0.0)


def sqnr_db(histogram: Histogram, values: Range, fmt: IntegerFormat) -> float:
    """Signal to quantization noise of a range over the histogram's values, in dB; infinite where nothing is lost."""
    return decibels(histogram.energy, float(noise(histogram, [affine(values, fmt)])[0]))


def decibels(signal: float, error: float) -> float:
    """10 log10(signal / error) of two powers; infinite where there is no error (or nothing to lose)."""
    return 10 * math.log10(signal / error) if error > 0 and signal > 0 else math.inf


def _integral(
    x: NDArray[np.float64], scale: NDArray[np.float64], lowest: NDArray[np.float64], highest: NDArray[np.float64]
) -> NDArray[np.float64]:
    code = x / scale
    np.rint(code, out=code)
    np.maximum(code, lowest, out=code)
    np.minimum(code, highest, out=code)
    rest = x - code * scale
    cubed = rest * rest
    cubed *= rest
    cubed /= 3
    code *= scale**3 / 12
    code += cubed
    return code
