"""`Range`: the real values that a tensor's codes span, and the affine grid that a number format lays over it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgedeploy.calibration.scheme import IntegerFormat

#: A tensor that never exceeds this counts as zero throughout: a scale below it would be lost in float32 products.
NEGLIGIBLE = 2.0**-64

#: The range of a tensor that holds no information: any non-zero scale is right, 1 is a safe one.
SAFE_HIGH = 1.0


@dataclass(frozen=True)
class Range:
    """Real values from ``low`` (at most 0) to ``high`` (at least 0); zero is always inside."""

    low: float
    high: float

    @property
    def magnitude(self) -> float:
        """The larger absolute end."""
        return max(-self.low, self.high)


def safe_range(low: float, high: float) -> Range:
    """Widen to include zero; a range that holds only (nearly) zeros becomes (0, 1), which any format can take."""
    low, high = min(low, 0.0), max(high, 0.0)
    if max(-low, high) < NEGLIGIBLE:
        return Range(0.0, SAFE_HIGH)
    return Range(low, high)


@dataclass(frozen=True)
class Affine:
    """real = (code - zero_point) * scale, codes from ``qmin`` to ``qmax``; ``scale`` is a float32 value."""

    scale: float
    zero_point: int
    qmin: int
    qmax: int

    @property
    def low(self) -> float:
        """Smallest real value that has a code."""
        return (self.qmin - self.zero_point) * self.scale

    @property
    def high(self) -> float:
        """Largest real value that has a code."""
        return (self.qmax - self.zero_point) * self.scale


def affine(values: Range, fmt: IntegerFormat) -> Affine:
    """Lay a format's codes over a range, zero exactly on a code.

    Symmetric signed: scale = magnitude / qmax, zero_point 0. Symmetric unsigned: the zero point is the middle code.
    Asymmetric: scale = (high - low) / (qmax - qmin), zero_point = round(qmin - low / scale).
    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", 2018, section 2.1 (and 3: nudged so that zero is exact); ONNX QuantizeLinear.
    """
    if fmt.symmetric:
        middle = 0 if fmt.signed else (fmt.qmax + 1) // 2
        scale = _float32(values.magnitude / (fmt.qmax - middle))
        return Affine(scale, middle, fmt.qmin, fmt.qmax)
    scale = _float32((values.high - values.low) / (fmt.qmax - fmt.qmin))
    zero_point = round(fmt.qmin - values.low / scale)
    return Affine(scale, min(max(zero_point, fmt.qmin), fmt.qmax), fmt.qmin, fmt.qmax)


def _float32(scale: float) -> float:
    return float(np.float32(max(scale, float(np.finfo(np.float32).tiny))))
