"""Sums of float64 values that come out the same, bit for bit, in any order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Units of the limbs: 48 bits apart, from 2^176 (squares of float32 activations and their sums) down to 2^-112.
_EXPONENTS = (176, 128, 80, 32, -16, -64, -112)


class ExactSum:
    """A vector of sums held as fixed-point integers: each value is cut to a multiple of 2^-112, then added exactly.

    Holds for magnitudes below 2^190. The same idea as Kulisch's long accumulator ("Computer Arithmetic and
    Validity", 2013, chapter 8), with 48 bits a limb and 15 bits of headroom between carries.
    """

    def __init__(self, size: int) -> None:
        self._limbs = np.zeros((len(_EXPONENTS), size), np.int64)
        self._pending = 0

    def add(self, values: NDArray[np.float64]) -> None:
        """Add finite values to each sum; shape (size,) or, for fewer than 2^14 at a time, (n, size)."""
        rest = np.array(values, np.float64, ndmin=2)
        largest = np.abs(rest).max(initial=0.0)
        for index, exponent in enumerate(_EXPONENTS):
            if largest < 2.0 ** (exponent - 1):  # no digit here
                continue
            digit = np.rint(rest * 2.0**-exponent)
            self._limbs[index] += digit.sum(axis=0, dtype=np.int64)
            rest -= digit * 2.0**exponent
            if not rest.any():
                break
            largest = np.inf
        self._pending += len(rest)
        if self._pending >= 1 << 14:
            self._carry()

    def value(self) -> NDArray[np.float64]:
        """The sums, rounded once per limb from the canonical digits."""
        self._carry()
        return np.asarray(
            sum(np.ldexp(limb.astype(np.float64), e) for limb, e in zip(self._limbs, _EXPONENTS, strict=True))
        )

    def _carry(self) -> None:
        """Bring every limb but the first into [0, 2^48), so that equal sums have equal digits."""
        for index in range(len(_EXPONENTS) - 1, 0, -1):
            self._limbs[index - 1] += self._limbs[index] >> 48
            self._limbs[index] &= (1 << 48) - 1
        self._pending = 0
