"""How a figure was obtained: the idea on which every verdict rests."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Evidence(StrEnum):
    """Where a figure comes from, strongest first."""

    ARTEFACT = "artefact"
    """Counted on the shipped file itself, which is the same on every machine: its size."""
    DEVICE = "device"
    SIMULATOR = "simulator"
    EXECUTOR = "executor"
    ESTIMATE = "estimate"
    NONE = "none"

    @property
    def strength(self) -> int:
        """5 for ``artefact`` down to 0 for ``none``."""
        return len(Evidence) - 1 - list(Evidence).index(self)

    def at_least(self, other: Evidence) -> bool:
        """True where this evidence is as strong as ``other`` or stronger."""
        return self.strength >= other.strength


@dataclass(frozen=True)
class Figure:
    """One measured, simulated or estimated quantity.

    Attributes:
        name: what it is, unit included: ``latency_ms``, ``size_mb``, ``ram_kb``, ``cosine_min``.
        value: the figure; ``None`` where it is not known (evidence is then ``none``).
        evidence: how it was obtained.
        how: one phrase on the method, for the report ("p50 of 200 runs, 1 thread").
        low, high: the 90 % band; required for an estimate.
        statistics: further figures of the same quantity, by name (``p50``, ``p90``, ``p99``).
    """

    name: str
    value: float | None
    evidence: Evidence
    how: str = ""
    low: float | None = None
    high: float | None = None
    statistics: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if (self.value is None) != (self.evidence is Evidence.NONE):
            raise ValueError(f"{self.name}: a figure has a value exactly when it has evidence")
        if self.evidence is Evidence.ESTIMATE and (self.low is None or self.high is None):
            raise ValueError(f"{self.name}: an estimate needs its band (low, high)")

    def statistic(self, name: str) -> float | None:
        """The named statistic, or the value itself for an empty name."""
        return self.value if not name else dict(self.statistics).get(name)


def unknown(name: str, why: str) -> Figure:
    """A figure nobody measured, with the reason."""
    return Figure(name, None, Evidence.NONE, how=why)
