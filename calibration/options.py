"""`CalibrationOptions`: what a user may choose about calibration, and what belongs to a table's key."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from edgedeploy.errors import InputError


@dataclass(frozen=True)
class CalibrationOptions:
    """Choices that change a table.

    Attributes:
        percentile: share of values, in percent, that the percentile method keeps inside its range.
        held_fraction: share of the samples on which threshold methods are compared.
        include_fused: also observe tensors between an op and the Relu or Clip fused into it.
    """

    percentile: float = 99.99
    held_fraction: float = 0.125
    include_fused: bool = False

    def __post_init__(self) -> None:
        if not 50.0 < self.percentile <= 100.0:
            raise InputError(
                "The percentile must lie between 50 and 100.", found=str(self.percentile), remedy="99.99 is usual."
            )
        if not 0.0 <= self.held_fraction <= 0.5:
            raise InputError(
                "The held-back fraction must lie between 0 and 0.5.", found=str(self.held_fraction), remedy="Use 0.125."
            )

    def as_dict(self) -> dict[str, float | bool]:
        """Every choice by name, for the key and the manifest."""
        return asdict(self)
