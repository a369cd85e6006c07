"""Scales and zero points: from a real range to integer codes and back (real = (code - zero_point) * scale)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.calibration.ranges import affine, safe_range

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.calibration.scheme import IntegerFormat

# Below this a product of two scales could be denormal in float32, which runtimes flush to zero.
_SMALLEST_SCALE = np.float32(2.0**-60)
# With more weights than this a channel's rounding errors average out, and no scale is better than its neighbours.
_FEW_WEIGHTS = 64
# Elements that are tried at a time when a scale is refined: they stay in a core's cache.
_BLOCK_ELEMENTS = 1 << 15
# A bias keeps this much of int32, so that adding the accumulator to it cannot overflow.
_LARGEST_BIAS_CODE = 2.0**30


@dataclass(frozen=True)
class Encoding:
    """How one tensor is stored in integers.

    Attributes:
        scale: float32, a scalar (shape ()) or one per channel (shape (channels,)).
        zero_point: int64, the shape of ``scale``.
        format: the number format.
        axis: the channel axis, ``None`` where the scale is a scalar.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    format: IntegerFormat
    axis: int | None = None

    def same_as(self, other: Encoding) -> bool:
        """True where both give every value the same code."""
        return (
            self.format.dtype == other.format.dtype
            and self.axis == other.axis
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )

    @property
    def identity(self) -> bytes:
        """What decides the real value of every code, as a key."""
        head = f"{self.format.dtype}/{self.axis}/".encode()
        return head + self.scale.tobytes() + self.zero_point.tobytes()

    def quantize(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Codes of ``values``, round half to even and saturate, as ONNX QuantizeLinear does."""
        codes = np.rint(values.astype(np.float64) / self._along(self.scale, values.ndim))
        codes = codes + self._along(self.zero_point, values.ndim)
        return np.asarray(np.clip(codes, self.format.qmin, self.format.qmax), np.int64)

    def dequantize(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Real values of ``codes``."""
        real = (codes - self._along(self.zero_point, codes.ndim)) * self._along(self.scale, codes.ndim)
        return np.asarray(real, np.float32)

    @property
    def low(self) -> float:
        """Smallest real value that a per-tensor encoding holds."""
        return float((self.format.qmin - self.zero_point) * np.float64(self.scale))

    @property
    def high(self) -> float:
        """Largest real value that a per-tensor encoding holds."""
        return float((self.format.qmax - self.zero_point) * np.float64(self.scale))

    def _along(self, values: NDArray[Any], ndim: int) -> NDArray[Any]:
        if self.axis is None:
            return values
        shape = [1] * ndim
        shape[self.axis] = -1
        return values.reshape(shape)


def activation_encoding(low: float, high: float, form: IntegerFormat) -> Encoding:
    """Encoding of a tensor whose values lie in [low, high]; zero is always exactly representable.

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", section 3; the range is widened to hold zero, so that padding is exact.
    """
    grid = affine(safe_range(low, high), form)
    scale = np.asarray(max(grid.scale, _SMALLEST_SCALE), np.float32)
    # Runtimes drop a Clip before QuantizeLinear only where the largest code does not lie above its bound.
    span = form.qmax - form.qmin
    while grid.zero_point == form.qmin and span * np.float64(scale) > high > 0 == low and scale > _SMALLEST_SCALE:
        scale = np.asarray(np.nextafter(scale, np.float32(0)), np.float32)
    return Encoding(scale, np.array(grid.zero_point, np.int64), form)


def fixed_encoding(scale: float, zero_point: int, form: IntegerFormat) -> Encoding:
    """Encoding that a runtime dictates."""
    return Encoding(np.array(scale, np.float32), np.array(zero_point, np.int64), form)


def weight_encoding(
    values: NDArray[np.float32],
    form: IntegerFormat,
    axis: int | None,
    bias: NDArray[np.float32] | None = None,
    input_scale: float | None = None,
) -> Encoding:
    """Encoding of a constant weight over its whole range.

    Args:
        values: the weight.
        form: its format; per channel where ``axis`` is given.
        axis: the output-channel axis, ``None`` for one scale.
        bias: float32 (channels,) where an integer bias with scale ``input_scale * weight scale`` must hold it: a
            scale is raised where the bias would leave int32.
        input_scale: scale of the activation that the weight multiplies.

    A channel of few weights (depthwise) gets the scale, up to a fifth coarser than its range needs, on whose grid its
    weights lie best. A channel without weights gets the mean scale of the others: it decides only how fine its bias is.
    """
    rows = values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    low = np.minimum(rows.min(axis=1, initial=0.0), 0.0).astype(np.float64)
    high = np.maximum(rows.max(axis=1, initial=0.0), 0.0).astype(np.float64)
    if form.symmetric:
        middle = 0 if form.signed else (form.qmax + 1) // 2
        scale = np.maximum(-low, high) / (form.qmax - middle)
    else:
        scale = (high - low) / (form.qmax - form.qmin)
    if form.symmetric and axis is not None and rows.shape[1] <= _FEW_WEIGHTS:
        scale = _refined(rows.astype(np.float64), scale)
    live = scale > 0
    scale[~live] = scale[live].mean() if live.any() else 1.0 / form.qmax
    if bias is not None and input_scale is not None:
        needed = least_scale(bias, input_scale)
        scale = np.maximum(scale, needed if axis is not None else needed.max(initial=0.0))
    scale32 = np.maximum(scale.astype(np.float32), _SMALLEST_SCALE)
    if form.symmetric:
        zero_point = np.full(scale32.shape, middle, np.int64)
    else:
        zero_point = np.clip(np.rint(form.qmin - low / scale32), form.qmin, form.qmax).astype(np.int64)
    if axis is None:
        return Encoding(scale32[0].reshape(()), zero_point[0].reshape(()), form)
    return Encoding(scale32, zero_point, form, axis)


def holds_bias(encoding: Encoding, bias: NDArray[np.float32] | None, input_scale: float | None) -> bool:
    """True where a weight's scales are coarse enough for an integer bias with scale ``input_scale * weight scale``."""
    return bias is None or input_scale is None or bool((least_scale(bias, input_scale) <= encoding.scale).all())


def least_scale(bias: NDArray[np.float32], input_scale: float) -> NDArray[np.float64]:
    """The finest weight scales beside which an integer bias, in units of input scale times weight scale, fits."""
    return np.asarray(np.abs(bias.astype(np.float64)) / (input_scale * _LARGEST_BIAS_CODE))


def _refined(rows: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per row, the scale among slightly coarser ones that rounds the row with the least output error.

    The taps of a spatial filter see neighbouring values, which are alike: errors of equal sign add up, so the error
    of the row's sum counts beside the errors of its elements (correlation 0.8 between neighbours).
    """
    candidates = np.where(scale > 0, scale, 1.0) * np.linspace(1.0, 1.2, 65)[:, None]
    taps = np.ascontiguousarray(rows.T)
    width = max(1, _BLOCK_ELEMENTS // max(1, len(candidates) * len(taps)))
    best = [
        _best(taps[:, start : start + width], candidates[:, start : start + width])
        for start in range(0, max(1, len(rows)), width)
    ]
    return np.where(scale > 0, np.concatenate(best), 0.0)


def _best(taps: NDArray[np.float64], candidates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per column of ``taps``, its best candidate; all of them hold every tap, so nothing saturates."""
    steps = taps[:, None] / candidates
    errors = np.rint(steps)
    errors -= steps
    total = errors.sum(axis=0)
    error = (np.einsum("tcr,tcr->cr", errors, errors) + 4.0 * np.square(total)) * np.square(candidates)
    return np.asarray(candidates[error.argmin(axis=0), np.arange(taps.shape[1])])
