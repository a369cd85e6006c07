"""Infinities by design: a masked logit is minus infinity in the reference and must never win in the artefact either."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A reference that is NaN in a larger share of its elements than this proves too little.
MOST_UNDEFINED = 1 / 3


@dataclass
class Pattern:
    """Counts where one output's samples are not finite, and whether the artefact answers as it should.

    An infinity of the reference must be the same infinity. On a device whose output cannot hold one (integers, some
    float16 kernels), a finite number stands for it if it lies beyond every finite value of the reference by at least
    their whole range: then it loses every comparison as clearly as the infinity does. A mask filled with the lowest
    code of a range that holds the other values too is no such number.

    Attributes:
        low, high: the finite extremes of the reference, over all samples.
        infinities: elements in which the reference is infinite.
        wrong: those that are neither that infinity nor such a number.
        stand_ins: those that are such a number.
        undefined: elements in which the reference is NaN; they prove nothing and are left out.
        undefined_samples: samples with any such element.
        elements: all elements.
    """

    low: float
    high: float
    infinities: int = 0
    wrong: int = 0
    stand_ins: int = 0
    undefined: int = 0
    undefined_samples: int = 0
    elements: int = 0

    def add(self, want: NDArray[Any], got: NDArray[Any]) -> None:
        """Count one sample."""
        self.elements += want.size
        undefined = int(np.isnan(want).sum())
        self.undefined += undefined
        self.undefined_samples += undefined > 0
        infinite = np.isinf(want)
        if not infinite.any():
            return
        w, g = want[infinite], got[infinite]
        same = w == g
        margin = self.high - self.low
        with np.errstate(invalid="ignore"):
            beyond = np.where(w > 0, g >= self.high + margin, g <= self.low - margin)
        # Without a range of finite values nothing says what lies beyond it.
        beyond &= np.isfinite(g) & (margin > 0)
        self.infinities += w.size
        self.stand_ins += int((beyond & ~same).sum())
        self.wrong += int((~beyond & ~same).sum())
