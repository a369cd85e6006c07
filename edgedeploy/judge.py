"""Budgets and quality gates to verdicts: what passed, what failed, what nobody could verify."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from edgedeploy.errors import ExitCode
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.quality.nonfinite import MOST_UNDEFINED

if TYPE_CHECKING:
    from edgedeploy.compare import OutputComparison
    from edgedeploy.device_profiles.schema import Budget, DeviceProfile, Quality
    from edgedeploy.quality.metrics import MetricFigure


#: Gates that compare outputs with the reference: more precision can mend what fails them.
FIDELITY = (
    "max_accuracy_drop",
    "min_agreement",
    "min_sqnr_db",
    "min_channel_sqnr_db",
    "min_sample_sqnr_db",
    "min_identical",
    "min_cosine",
)


class Outcome(StrEnum):
    """What became of one budget or gate."""

    PASS = "pass"
    FAIL = "fail"
    UNVERIFIED = "unverified"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Verdict:
    """One judged line.

    Attributes:
        name: the figure or gate ("latency_ms", "min_agreement").
        limit: as a sentence part ("≤ 50 (p50)").
        value, low, high: what was found, with its band where it is an estimate.
        why: why it is not a plain pass or fail.
    """

    name: str
    kind: str
    limit: str
    value: float | None
    low: float | None
    high: float | None
    evidence: Evidence
    outcome: Outcome
    required: bool
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values; a figure that JSON has no number for becomes its name ("nan", "inf")."""
        numbers = {name: _plain(getattr(self, name)) for name in _NUMBERS}
        return {**asdict(self), **numbers, "evidence": str(self.evidence), "outcome": str(self.outcome)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Verdict:
        """Read `to_json`'s values back."""
        numbers = {name: None if fields[name] is None else float(fields[name]) for name in _NUMBERS}
        evidence, outcome = Evidence(fields["evidence"]), Outcome(fields["outcome"])
        return cls(**{**fields, **numbers, "evidence": evidence, "outcome": outcome})


#: The figures of a verdict.
_NUMBERS = ("value", "low", "high")


def _plain(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)


def judge_budgets(profile: DeviceProfile, figures: Iterable[Figure]) -> tuple[Verdict, ...]:
    """Judge every budget of the profile; a figure that is absent stays unverified, never passes."""
    known = {figure.name: figure for figure in figures}
    return tuple(_judge_budget(key, budget, known.get(key)) for key, budget in profile.budget.items())


def judge_quality(
    gates: Quality,
    comparisons: Sequence[OutputComparison],
    evidence: Evidence,
    *,
    data_free: bool = False,
    clipped_fraction: float | None = None,
    allowed: Collection[str] = (),
) -> tuple[Verdict, ...]:
    """Judge the gates that are set against the worst output; ``allowed`` names gates that may stay unverified."""
    verdicts = _finite(comparisons, evidence)
    vacuous = next((item.vacuous for item in comparisons if item.vacuous), "")
    for gate, limit in gates.model_dump(exclude_none=True).items():
        if gate == "max_clipped_fraction":
            found = _Found(clipped_fraction)
            # Counted on this host's calibration statistics, whatever ran the artefact or did not.
            proof = Evidence.NONE if clipped_fraction is None else Evidence.ESTIMATE
        else:
            found, proof = _worst(gate, comparisons), evidence
        outcome, why = Outcome.PASS, ""
        if gate != "max_clipped_fraction" and evidence is Evidence.NONE:
            outcome, why = Outcome.UNVERIFIED, "the artefact was not run"
        elif found.value is None:
            outcome, why = Outcome.NOT_APPLICABLE, _NOT_APPLICABLE[gate]
        elif not ((found.value <= limit) if gate.startswith("max_") else (found.value >= limit)):
            outcome, why = Outcome.FAIL, found.where  # not a number is not inside
        elif gate == "min_identical" and (dead := next((item for item in comparisons if item.dead), None)):
            outcome, why = Outcome.FAIL, f"{dead.output!r}, {dead.dead}"
        elif data_free:
            outcome, why = Outcome.UNVERIFIED, "no calibration or evaluation data: judged on made-up inputs"
        elif vacuous and gate != "max_clipped_fraction":
            outcome, why = Outcome.UNVERIFIED, vacuous
        spared = outcome is Outcome.UNVERIFIED and may_stay_unverified(gate, allowed)
        sign = "≤" if gate.startswith("max_") else "≥"
        verdicts.append(
            Verdict(gate, "quality", f"{sign} {limit:g}", found.value, None, None, proof, outcome, not spared, why)
        )
    return tuple(verdicts)


def _finite(comparisons: Sequence[OutputComparison], evidence: Evidence) -> list[Verdict]:
    """NaN or Inf where the reference has none fails, whatever gates are set, and so does a lost infinity."""
    broken = max((item.broken_samples for item in comparisons), default=0)
    wrong = sum(item.infinities_wrong for item in comparisons)
    infinities = sum(item.infinities for item in comparisons)
    undefined = max((item.undefined_samples for item in comparisons), default=0)
    if not (broken or infinities or undefined):
        return []
    reasons = []
    if broken:
        reasons.append(f"NaN or Inf in {broken} of {comparisons[0].samples} samples, none in the FP32 reference")
    if wrong:
        reasons.append(f"{wrong} of the reference's {infinities} infinities are other numbers")
    outcome = Outcome.FAIL if reasons else Outcome.PASS
    if stand_ins := sum(item.infinities_finite for item in comparisons):
        reasons.append(f"{stand_ins} of {infinities} infinities are finite numbers far beyond all others")
    if undefined:
        reasons.append(f"the FP32 reference has NaN in {undefined} of {comparisons[0].samples} samples: left out there")
        unproved = any(item.undefined_share > MOST_UNDEFINED for item in comparisons)
        outcome = Outcome.UNVERIFIED if unproved and outcome is Outcome.PASS else outcome
    why = "; ".join(reasons)
    value = broken + wrong
    return [Verdict("finite_outputs", "quality", "0 broken", value, None, None, evidence, outcome, True, why)]


def judge_metric(
    metrics: Sequence[MetricFigure], max_drop: float | None, evidence: Evidence, *, data_free: bool = False
) -> tuple[Verdict, ...]:
    """Judge the drop of the first metric where deploy.toml bounds it; without a run it stays unverified."""
    if max_drop is None:
        return ()
    first = metrics[0] if metrics else None
    value = first.drop if first else None
    why = f"{first.name} of {first.output!r} against {first.against}" if first else "no metric was measured"
    if value is None or evidence is Evidence.NONE:
        outcome = Outcome.UNVERIFIED
    elif not value <= max_drop:
        outcome = Outcome.FAIL
    elif data_free:
        outcome, why = Outcome.UNVERIFIED, "no calibration or evaluation data: judged on made-up inputs"
    else:
        outcome = Outcome.PASS
    limit = f"≤ {max_drop:g}"
    return (Verdict("max_metric_drop", "quality", limit, value, None, None, evidence, outcome, True, why),)


def may_stay_unverified(gate: str, allowed: Collection[str]) -> bool:
    """True where the user allows it, by the gate's name or without its ``min_`` or ``max_``."""
    return gate in allowed or gate.split("_", 1)[1] in allowed


def exit_code(verdicts: Iterable[Verdict]) -> ExitCode:
    """1 where a required verdict failed, 3 where one stayed unverified, else 0."""
    outcomes = {verdict.outcome for verdict in verdicts if verdict.required}
    if Outcome.FAIL in outcomes:
        return ExitCode.BUDGET_FAILED
    return ExitCode.UNVERIFIED if Outcome.UNVERIFIED in outcomes else ExitCode.OK


def summary(verdicts: Sequence[Verdict]) -> str:
    """One line: "4 pass: 2 simulator, 2 estimate; 1 fail"."""
    parts = []
    for outcome in Outcome:
        chosen = [verdict for verdict in verdicts if verdict.outcome is outcome]
        if not chosen:
            continue
        text = f"{len(chosen)} {outcome}"
        if outcome is Outcome.PASS:
            counted = Counter(str(verdict.evidence) for verdict in chosen)
            text += ": " + ", ".join(f"{counted[kind]} {kind}" for kind in map(str, Evidence) if counted[kind])
        parts.append(text)
    return "; ".join(parts) or "nothing to judge: the profile sets no budget"


def _judge_budget(key: str, budget: Budget, figure: Figure | None) -> Verdict:
    statistic = budget.statistic
    limit = f"{'≤' if budget.max is not None else '≥'} {budget.limit:g}" + (f" ({statistic})" if statistic else "")
    value = figure.statistic(statistic) if figure else None
    evidence = figure.evidence if figure and value is not None else Evidence.NONE
    # An estimate's band belongs to its central value; without a statistic of its own it stands for any.
    if figure and value is None and figure.evidence is Evidence.ESTIMATE and statistic == "p50":
        value, evidence = figure.value, figure.evidence
    low = figure.low if figure and value is not None else None
    high = figure.high if figure and value is not None else None
    outcome, why = _budget_outcome(budget, value, low, high, evidence, figure)
    required = budget.required and not (outcome is Outcome.UNVERIFIED and budget.allow_unverified)
    return Verdict(key, "budget", limit, value, low, high, evidence, outcome, required, why)


def _budget_outcome(
    budget: Budget,
    value: float | None,
    low: float | None,
    high: float | None,
    evidence: Evidence,
    figure: Figure | None,
) -> tuple[Outcome, str]:
    if value is None:
        if figure and figure.value is not None:
            return Outcome.UNVERIFIED, f"no {budget.statistic} is known"
        return Outcome.UNVERIFIED, (figure.how if figure else "") or "not measured"
    if not evidence.at_least(budget.evidence):
        return Outcome.UNVERIFIED, f"evidence {budget.evidence} is asked for, this is {evidence}"
    inside = [_inside(budget, edge) for edge in ((low, high) if evidence is Evidence.ESTIMATE else (value,))]
    if all(inside):
        return Outcome.PASS, ""
    if not any(inside):
        return Outcome.FAIL, ""
    return Outcome.UNVERIFIED, "the limit lies inside the estimate's band"


def _inside(budget: Budget, value: float | None) -> bool:
    if value is None:
        return False
    return value <= budget.limit if budget.max is not None else value >= budget.limit


@dataclass(frozen=True)
class _Found:
    """The worst value of a gate, and whose it is."""

    value: float | None
    where: str = ""


def _worst(gate: str, comparisons: Sequence[OutputComparison]) -> _Found:
    """The worst output's value for a gate."""
    found = [_Found(value, f"{item.output!r}{place}") for item in comparisons
             for value, place in [_of_output(gate, item)] if value is not None]  # fmt: skip
    if not found:
        return _Found(None)
    broken = next((item for item in found if item.value != item.value), None)
    pick = max if gate.startswith("max_") else min
    return broken or pick(found, key=lambda item: item.value or 0.0)


def _of_output(gate: str, item: OutputComparison) -> tuple[float | None, str]:
    """(value of a gate for one output, where in it)."""
    if gate == "max_accuracy_drop":
        if item.accuracy is None or item.reference_accuracy is None:
            return None, ""
        return item.reference_accuracy - item.accuracy, ""
    if gate == "min_sqnr_db":
        return item.sqnr_db, f", {item.groups[0].where}" if item.groups and item.groups[0].where else ""
    if gate == "min_channel_sqnr_db":
        return item.channel_sqnr_db, f", {item.worst_channel}" if item.worst_channel else ""
    if gate == "min_sample_sqnr_db":
        return item.sample_sqnr_db, f", sample {', '.join(map(str, item.worst_samples[:4]))}"
    if gate == "min_identical":
        return item.identical, ""
    return {"min_agreement": item.agreement, "min_cosine": item.cosine_mean}[gate], ""


_NOT_APPLICABLE = {
    "max_accuracy_drop": "the evaluation data has no labels",
    "min_agreement": "no output is a class score",
    "min_cosine": "no output is floating-point",
    "min_sqnr_db": "no output is floating-point",
    "min_channel_sqnr_db": "no floating-point output has more than one element",
    "min_sample_sqnr_db": "no output is floating-point",
    "min_identical": "no output is an integer or boolean",
    "max_clipped_fraction": "this artefact has no quantized activations",
}
