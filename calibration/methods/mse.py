"""The range with the least mean squared quantization error."""

from __future__ import annotations

import numpy as np

from edgedeploy.calibration.methods.method import Distribution, clipped
from edgedeploy.calibration.noise import noise
from edgedeploy.calibration.options import CalibrationOptions
from edgedeploy.calibration.ranges import Range, affine
from edgedeploy.calibration.scheme import IntegerFormat

_OCTAVES = 10
_COARSE = 2.0 ** (-np.arange(0, _OCTAVES * 2 + 1) / 2)
_FINE = 2.0 ** (np.arange(-6, 7) / 14)


def mse(values: Distribution, fmt: IntegerFormat, options: CalibrationOptions) -> Range:
    """Return the range that minimizes E[(x - q(x))^2].

    One threshold T for both sides is searched over 10 octaves below the largest magnitude, half an octave apart and
    then finer; for an asymmetric format each side of a two-sided tensor is then shrunk or widened on its own.
    Source: Nagel et al., "A White Paper on Neural Network Quantization", 2021, section 3.1.
    """
    bounds = values.bounds

    def best(candidates: list[Range]) -> Range:
        errors = noise(values.histogram.coarse, [affine(candidate, fmt) for candidate in candidates])
        return candidates[int(np.argmin(errors))]

    def both_sides(thresholds: np.ndarray) -> list[Range]:
        return [clipped(bounds, -threshold, threshold) for threshold in thresholds.tolist()]

    found = best(both_sides(bounds.magnitude * _COARSE))
    found = best([found, *both_sides(found.magnitude * _FINE)])
    if fmt.symmetric or bounds.low == 0.0 or bounds.high == 0.0:
        return found
    for factors in (_COARSE[:13], _FINE):
        base = bounds if factors is not _FINE else found
        found = best([found, *(clipped(bounds, base.low * factor, found.high) for factor in factors.tolist())])
        base = bounds if factors is not _FINE else found
        found = best([found, *(clipped(bounds, found.low, base.high * factor) for factor in factors.tolist())])
    return found
