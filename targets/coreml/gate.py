"""The first of two gates: a FLOAT32 twin of the package must compute what torch computes.

The twin comes from the same conversion as the float16 package. Where it agrees with torch, the converted graph and
this executor are both right, and what the float16 package loses is rounding: that is judged by the task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.quality.measures import cosine

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_COSINE = 0.9999
MAX_ERROR = 1e-3
"""Largest error, as a fraction of the output's own magnitude (its largest absolute value over the samples)."""

MAX_SPREAD_ERROR = 2e-2
"""Root-mean-square error as a fraction of how much the output varies from one input to another: a bias that hides
in a large constant output shows here."""

FLOAT32_NOISE = 1e-6
"""A spread below this fraction of the output's magnitude is rounding noise of float32 sums, not an answer."""


@dataclass(frozen=True)
class Agreement:
    """How one output of a package compares with its reference over several samples.

    Attributes:
        output: its captured name.
        cosine: smallest over the samples.
        error: largest absolute difference, relative to the reference's largest absolute value.
        spread_error: root-mean-square difference over the reference's standard deviation across samples; ``None``
            where there is one sample, or the reference does not vary beyond `FLOAT32_NOISE`.
        top1_agreement: share of samples with the same argmax along the last axis; ``None`` below two elements.
        distinct_top1: number of different argmaxes in the reference.
    """

    output: str
    cosine: float
    error: float
    spread_error: float | None
    top1_agreement: float | None
    distinct_top1: int | None

    @property
    def tight(self) -> bool:
        """True where a FLOAT32 package may differ from torch by no more than this."""
        spread_ok = self.spread_error is None or self.spread_error <= MAX_SPREAD_ERROR
        return self.cosine >= MIN_COSINE and self.error <= MAX_ERROR and spread_ok


@dataclass(frozen=True)
class TwinReport:
    """The FLOAT32 twin against torch."""

    agreements: tuple[Agreement, ...]
    samples: int

    @property
    def passed(self) -> bool:
        """True where every output is tight."""
        return all(agreement.tight for agreement in self.agreements)

    def __str__(self) -> str:
        return "; ".join(
            f"{item.output}: cosine {item.cosine:.7f}, error {item.error:.1e} of its magnitude"
            + (f", {item.spread_error:.1e} of its spread" if item.spread_error is not None else "")
            for item in self.agreements
        )


def compare(output: str, got: NDArray[Any], expected: NDArray[Any]) -> Agreement:
    """Compare arrays of shape (samples, ...); a NaN or infinity that the reference lacks makes cosine NaN-free -1."""
    flat = got.reshape(len(got), -1).astype(np.float64)
    reference = expected.reshape(len(expected), -1).astype(np.float64)
    if flat.shape != reference.shape or not np.array_equal(np.isfinite(flat), np.isfinite(reference)):
        return Agreement(output, -1.0, float("inf"), None, None, None)
    finite = np.isfinite(reference)
    flat, reference = np.where(finite, flat, 0.0), np.where(finite, reference, 0.0)
    lowest = min(cosine(a, b) for a, b in zip(flat, reference, strict=True))
    difference = flat - reference
    magnitude = float(np.abs(reference).max(initial=0.0))
    error = float(np.abs(difference).max(initial=0.0)) / (magnitude or 1.0)
    spread = float(np.sqrt(reference.var(axis=0).mean())) if len(reference) > 1 else 0.0
    rms = float(np.sqrt(np.square(difference).mean()))
    agreement, distinct = None, None
    if expected.ndim > 1 and expected.shape[-1] > 1:
        best, own = expected.argmax(-1), got.argmax(-1)
        agreement, distinct = float((best == own).mean()), len(np.unique(best))
    varies = spread > FLOAT32_NOISE * magnitude
    return Agreement(output, lowest, error, rms / spread if varies else None, agreement, distinct)


def check_twin(
    package: Path, feeds: Sequence[Mapping[str, NDArray[Any]]], expected: Mapping[str, NDArray[Any]], collect: Any
) -> TwinReport:
    """Run a FLOAT32 package and compare with torch.

    Args:
        package: the saved twin.
        feeds: samples in the package's names and types.
        expected: torch's outputs by captured name, shape (samples, ...).
        collect: turns the package's outputs into arrays by captured name.
    """
    from edgedeploy.targets.coreml.executor import Executor

    executor = Executor(package)
    rows = []
    for sample in feeds:
        executor.reset()
        rows.append(collect(executor.run(sample)))
    agreements = tuple(
        compare(name, np.stack([row[name] for row in rows]).reshape(values.shape), values)
        if sum(row[name].size for row in rows) == values.size
        else Agreement(name, -1.0, float("inf"), None, None, None)
        for name, values in expected.items()
    )
    return TwinReport(agreements, len(rows))
