"""Per-channel scales that are a power of two apart, for hardware that shifts between channels instead of multiplying.

Seen in Qualcomm's HTP simulator for V68: with 16-bit activations and arbitrary per-channel scales, every output channel
is off by a constant of up to 24 steps (standard deviation 7); with one scale, or with scales a power of two apart, by
less than one.
"""

from __future__ import annotations

import numpy as np

_TRIED = 8  # bases tried between one power of two and the next


def octaves(
    weights: np.ndarray[tuple[int, ...], np.dtype[np.float32]], limit: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
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
    rows: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    scales: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    limit: int,
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    steps = scales[:, None]
    return np.asarray(np.square(np.clip(np.rint(rows / steps), -limit, limit) * steps - rows).sum(axis=1))
