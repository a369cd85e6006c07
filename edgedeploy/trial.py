"""One candidate run and judged, and the choice among several."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgedeploy.bundle.manifest import CandidateRecord
from edgedeploy.compare import OutputComparison
from edgedeploy.errors import ExitCode, InputError
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.interfaces import Artefact, Rejection, RunResult, Selection
from edgedeploy.judge import Outcome, Verdict, exit_code

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.calibration.dataset import Dataset

#: Times closer than this count as equal: machines are noisy, and a fixed order makes the choice repeatable.
TIE = 0.10


@dataclass(frozen=True)
class Trial:
    """A candidate with everything that was found out about it.

    Attributes:
        loop: its outputs over the samples as one sequence, where the model has states and the loop was run.
    """

    artefact: Artefact
    result: RunResult
    figures: tuple[Figure, ...]
    comparisons: tuple[OutputComparison, ...]
    verdicts: tuple[Verdict, ...]
    loop: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """What the target would end with if this candidate were taken."""
        return exit_code(self.verdicts)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the required budgets and gates that failed."""
        return tuple(item.name for item in self.verdicts if item.required and item.outcome is Outcome.FAIL)

    @property
    def admissible(self) -> bool:
        """True where neither quality nor size failed: only then does speed count."""
        return not any(
            item.outcome is Outcome.FAIL and item.required and (item.kind == "quality" or item.name == "size_mb")
            for item in self.verdicts
        )

    @property
    def latency_ms(self) -> float | None:
        """Measured median latency, ``None`` where nobody measured it."""
        for figure in self.figures:
            if figure.name == "latency_ms" and figure.evidence.at_least(Evidence.SIMULATOR):
                return figure.statistic("p50") or figure.value
        return None

    @property
    def pace_ms(self) -> float | None:
        """What candidates are compared by: the shortest measured time, which a busy machine lengthens least."""
        for figure in self.figures:
            if figure.name == "latency_ms" and self.latency_ms is not None:
                return figure.statistic("min") or self.latency_ms
        return None

    def rejection(self) -> Rejection:
        """What an exporter is told before it makes the next candidate."""
        return Rejection(self.artefact.candidate, f"failed {', '.join(self.failed)}", self.failed)


def choose(trials: Sequence[Trial], selection: Selection) -> Trial:
    """Choose: the admissible first (fewest failures), then, for `FASTEST`, the fastest; a tie goes by order."""
    pool = [trial for trial in trials if trial.admissible] or list(trials)
    fewest = min(len(trial.failed) for trial in pool)
    if not any(trial.admissible for trial in trials) or selection is Selection.FIRST_PASSING:
        return next(trial for trial in pool if len(trial.failed) == fewest)
    timed = [trial.pace_ms for trial in pool if trial.pace_ms is not None]
    if not timed:
        return pool[0]
    bound = min(timed) * (1 + TIE)
    return next(trial for trial in pool if trial.pace_ms is not None and trial.pace_ms <= bound)


def records(trials: Sequence[Trial], chosen: Trial) -> tuple[CandidateRecord, ...]:
    """Say of every candidate why it was or was not taken, without figures that differ from run to run."""
    return tuple(
        CandidateRecord(candidate=trial.artefact.candidate, chosen=trial is chosen, reason=_reason(trial, chosen))
        for trial in trials
    )


def _reason(trial: Trial, chosen: Trial) -> str:
    if trial is chosen:
        return f"least bad: failed {', '.join(trial.failed)}" if trial.failed else "chosen"
    if trial.failed:
        return f"failed {', '.join(trial.failed)}"
    if trial.pace_ms is None or chosen.pace_ms is None:
        return f"after {chosen.artefact.candidate} in the fixed order; no latency is known"
    if trial.pace_ms <= chosen.pace_ms * (1 + TIE):
        return f"within 10 % of {chosen.artefact.candidate}, which comes first in the fixed order"
    return f"slower than {chosen.artefact.candidate}"


def labels_of(samples: Dataset, named: str, scores: Sequence[str], outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Labels by output: ``labels:OUTPUT`` as named, ``labels`` for the output deploy.toml names, else the first scores.

    Raises:
        InputError: labels for an output that the model does not have.
    """
    default = named or next(iter((*scores, *outputs)))
    found = {output or default: labels for output, labels in samples.labels_by_output.items()}
    unknown = sorted(({*found, named} - {""}) - set(outputs))
    if unknown:
        raise InputError(
            f"There is no output {', '.join(map(repr, unknown))} to judge by labels.",
            found=f"outputs: {', '.join(outputs)}",
            remedy="Name one of them in [metric] output, or the array labels:OUTPUT.",
        )
    return found


def class_axes(outputs: Mapping[str, NDArray[Any]], named: Collection[str], kind: str) -> dict[str, int]:
    """Give the class axis of the outputs (samples, *output shape) that are class scores.

    Those are the ``named`` ones: what labels or deploy.toml name, else what the graph ends in a linear layer or a
    softmax. Classes are the last axis of a vector or a sequence, and the axis after the batch of an image.
    """
    if kind in ("embedding", "regression"):
        return {}
    return {
        name: 2 if outputs[name].ndim >= 5 else outputs[name].ndim - 1
        for name in named
        if name in outputs and outputs[name].ndim >= 2 and outputs[name].dtype.kind == "f"
    }
