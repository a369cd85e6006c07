"""The measures that every comparison of the project shares: one cosine, one decibel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def cosine(reference: NDArray[Any], output: NDArray[Any]) -> float:
    """Cosine of the angle between two arrays of one size, flattened.

    Two arrays of zeros are alike (1); zeros against anything else have nothing in common (0), and so has a value that
    is not finite: the result is never NaN.
    """
    a, b = np.asarray(reference, np.float64).ravel(), np.asarray(output, np.float64).ravel()
    largest_a, largest_b = float(np.abs(a).max(initial=0.0)), float(np.abs(b).max(initial=0.0))
    if not (math.isfinite(largest_a) and math.isfinite(largest_b)):
        return 0.0
    if largest_a == 0.0 or largest_b == 0.0:
        return 1.0 if largest_a == largest_b else 0.0
    a, b = a / largest_a, b / largest_b  # squares of very small or large values would leave the range of a double
    return float(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1.0, 1.0))


def decibels(signal: float, noise: float) -> float:
    """10 log10 of a ratio of powers: infinite without noise, minus infinite for noise without signal."""
    if noise <= 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf
