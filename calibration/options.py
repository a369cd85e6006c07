"""`CalibrationOptions`: what a user may choose about calibration, and what belongs to a table's key."""

from __future__ import annotations

from dataclasses import dataclass

from edgedeploy.errors import InputError

#: Choose per tensor by measured error.
AUTO = "auto"

#: What a user may ask for.
METHODS = (AUTO, "minmax", "percentile", "mse", "entropy")


@dataclass(frozen=True)
class CalibrationOptions:
    """Choices about a table.

    Attributes:
        method: "minmax", "percentile", "mse", "entropy", or "auto" for the best of them per tensor.
        percentile: share of values, in percent, that the percentile method keeps inside its range.
        folds: parts of the data, each in turn held back to compare threshold methods; 1 compares them on all.
        round_by_outputs: round weights so that layers' outputs are nearest; else each weight to its nearest code.
    """

    method: str = AUTO
    percentile: float = 99.99
    folds: int = 8
    round_by_outputs: bool = True

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(
                f"There is no calibration method {self.method!r}.", remedy=f"Choose one of: {', '.join(METHODS)}."
            )
        if not 50.0 < self.percentile <= 100.0:
            raise InputError(
                "The percentile must lie between 50 and 100.", found=str(self.percentile), remedy="99.99 is usual."
            )
        if not 1 <= self.folds <= 16:
            raise InputError("The number of folds must lie between 1 and 16.", found=str(self.folds), remedy="Use 8.")

    @property
    def collected(self) -> dict[str, int]:
        """The choices that change what is collected; the others only change how ranges are read from it."""
        return {"folds": self.folds}
