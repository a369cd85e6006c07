"""The range whose quantized distribution keeps most of the original's information: least KL divergence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedeploy.calibration.histogram import Histogram
from edgedeploy.calibration.methods.method import Distribution, clipped
from edgedeploy.calibration.options import CalibrationOptions
from edgedeploy.calibration.ranges import Range
from edgedeploy.calibration.scheme import IntegerFormat

#: Reference bins per code at the widest candidate, as in TensorRT (2048 bins for 128 codes).
_BINS_PER_CODE = 16

#: Candidates in a stretch of as many bins as there are codes: some 500 in all, 0.2 % of the range apart.
_STEPS_PER_CODES = 32

#: With more codes than this the reference bins are finer than any clipping could be worth: nothing is clipped.
_MOST_CODES = 1024


def entropy(values: Distribution, fmt: IntegerFormat, options: CalibrationOptions) -> Range:
    """Return the window [max(min, -T), min(max, T)] that minimizes KL(P || Q) over some 500 candidates T.

    P is the histogram inside the window with what lies outside added to its end bins. Q merges the bins inside into
    as many groups as the format has codes and spreads each group's mass evenly over its non-empty bins. Exact zeros
    are left out: every format represents them. Formats of 16 bits keep the whole range.
    Source: Migacz, "8-bit Inference with TensorRT", GTC 2017.
    """
    bounds = values.bounds
    codes = fmt.qmax - fmt.qmin + 1
    if codes > _MOST_CODES:
        return bounds
    low, high = (-bounds.magnitude, bounds.magnitude) if fmt.symmetric else (bounds.low, bounds.high)
    bins = _BINS_PER_CODE * codes
    mass = _linear_bins(values.histogram, low, high, bins)
    width = (high - low) / bins
    zero = round(-low / width)
    reach = max(zero, bins - zero)
    thresholds = np.append(np.arange(codes // 2, reach, max(1, codes // _STEPS_PER_CODES)), reach)
    first, last = np.maximum(zero - thresholds, 0), np.minimum(zero + thresholds, bins)
    usable = last - first >= codes
    first, last, thresholds = first[usable], last[usable], thresholds[usable]
    best = int(np.argmin(_divergences(mass, first, last, codes)))
    return clipped(bounds, -float(thresholds[best]) * width, float(thresholds[best]) * width)


def _linear_bins(histogram: Histogram, low: float, high: float, bins: int) -> NDArray[np.float64]:
    """Spread the counts over equal bins, uniformly within each original bin."""
    order = np.argsort(histogram.inner)
    edges = np.sort(np.stack([histogram.inner, histogram.outer], axis=1)[order], axis=1).reshape(-1)
    counts = np.cumsum(histogram.counts[order], dtype=np.float64)
    reached = np.repeat(np.concatenate([[0.0], counts]), 2)[1:-1]
    cumulative = np.interp(np.linspace(low, high, bins + 1), edges, reached, left=0.0, right=reached[-1])
    cumulative[0], cumulative[-1] = 0.0, reached[-1]
    return np.diff(cumulative)


def _divergences(
    mass: NDArray[np.float64], first: NDArray[np.int64], last: NDArray[np.int64], codes: int
) -> NDArray[np.float64]:
    """KL(P || Q) of each window [first, last) of bins, all windows at once.

    With P and Q constant in shape inside a group g of n non-empty bins, the sum of p log q over g is
    p_g log(q_g / n), so each window needs only cumulative sums at its group borders.
    """
    total = mass.sum()
    if total <= 0 or first.size == 0:
        return np.zeros(max(first.size, 1))
    p = mass / total
    cumulative = np.concatenate([[0.0], np.cumsum(p)])
    filled = np.concatenate([[0], np.cumsum(p > 0)])
    plogp = np.concatenate([[0.0], np.cumsum(_plogp(p))])
    steps = np.arange(codes + 1) / codes
    borders = np.rint(first[:, None] + (last - first)[:, None] * steps).astype(np.int64)
    inside = np.diff(cumulative[borders], axis=1)
    nonempty = np.diff(filled[borders], axis=1)
    below, above = cumulative[first], cumulative[-1] - cumulative[last]
    left, right = p[first], p[last - 1]
    outer = inside.copy()
    outer[:, 0] += below
    outer[:, -1] += above
    nonempty[:, 0] += (left == 0) & (below > 0)
    nonempty[:, -1] += (right == 0) & (above > 0)
    window = cumulative[last] - cumulative[first]
    own = plogp[last] - plogp[first] - _plogp(left) - _plogp(right) + _plogp(left + below) + _plogp(right + above)
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = np.where(outer > 0, outer * np.log(inside / nonempty / window[:, None]), 0.0)
    divergence: NDArray[np.float64] = own - cross.sum(axis=1)
    return np.where(np.isfinite(divergence), divergence, np.inf)


def _plogp(p: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = p * np.log(np.where(p > 0, p, 1.0))
    return result
