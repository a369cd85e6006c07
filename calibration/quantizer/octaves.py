"""Per-channel weight scales that are a power of two apart, which Hexagon needs beside 16-bit activations.

Seen in the HTP simulator for V68: with 16-bit activations and arbitrary per-channel scales, every output channel is off
by a constant of up to 24 steps of the output (standard deviation 7); with one scale, or with scales a power of two
apart, by less than one. Rounding scales up so costs the weights half a bit on average, and gains more than it costs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgedeploy.calibration.quantizer.encoding import Encoding, least_scale

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TRIED = 8  # bases tried between one power of two and the next


def octaves(weights: NDArray[np.float32], limit: int) -> NDArray[np.float32]:
    """Scales of the form base * 2^k, one a row, that round ``weights`` with the least error.

    Args:
        weights: (channels, elements).
        limit: the largest code. A row may be clipped where finer steps are worth more than its few largest weights.

    """
    rows = weights.astype(np.float64)
    exact = np.abs(rows).max(axis=1) / limit
    live = exact > 0
    exact[~live] = exact[live].mean() if live.any() else 1.0  # no weights: the scale decides only how fine the bias is
    best, least = exact, np.inf
    for fraction in np.arange(_TRIED) / _TRIED:
        base = exact.max() * 2.0**-fraction
        upper = base * np.exp2(np.ceil(np.log2(exact / base) - 1e-9))
        above, below = (_error(rows, scales, limit) for scales in (upper, upper / 2))
        chosen = np.where(above <= below, upper, upper / 2)
        total = float(np.minimum(above, below).sum())
        if total < least:
            best, least = chosen, total
    base32 = np.float32(best.max())
    return np.asarray(base32 * np.exp2(np.rint(np.log2(best / best.max()))), np.float32)


def _error(
    rows: NDArray[np.float64],
    scales: NDArray[np.float64],
    limit: int,
) -> NDArray[np.float64]:
    steps = scales[:, None]
    return np.asarray(np.square(np.clip(np.rint(rows / steps), -limit, limit) * steps - rows).sum(axis=1))


def spaced(
    encoding: Encoding, values: NDArray[np.float32], bias: NDArray[np.float32] | None, input_scale: float | None
) -> Encoding:
    """The same encoding of a weight per channel, its scales a power of two apart and coarse enough for the bias.

    Args:
        encoding: per channel and symmetric.
        values: the weight.
        bias, input_scale: as `weight_encoding` has them.

    """
    assert encoding.axis is not None
    rows = np.moveaxis(values, encoding.axis, 0).reshape(values.shape[encoding.axis], -1)
    scale = octaves(rows, encoding.format.qmax).astype(np.float64)
    if bias is not None and input_scale is not None:
        short = np.maximum(least_scale(bias, input_scale) / scale, 1.0)
        scale = scale * np.exp2(np.ceil(np.log2(short)))
    return replace(encoding, scale=scale.astype(np.float32))
