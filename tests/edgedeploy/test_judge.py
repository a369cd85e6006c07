"""Verdicts: an unmeasured figure never passes, an estimate needs its whole band."""

from __future__ import annotations

import numpy as np
import pytest

from edgedeploy.compare import compare
from edgedeploy.device_profiles.schema import Budget, DeviceProfile, Quality
from edgedeploy.errors import ExitCode, worst
from edgedeploy.evidence import Evidence, Figure, unknown
from edgedeploy.judge import Outcome, exit_code, judge_budgets, judge_quality, summary


def profile(**budgets: Budget) -> DeviceProfile:
    return DeviceProfile.model_validate(
        {"device": {"name": "thing", "class": "edge", "backend": "onnxruntime"}, "budget": budgets}
    )


def latency(value: float, evidence: Evidence = Evidence.DEVICE, **rest) -> Figure:
    return Figure("latency_ms", value, evidence, **rest)


@pytest.mark.parametrize(
    ("figure", "outcome"),
    [
        (latency(10), Outcome.PASS),
        (latency(20), Outcome.PASS),
        (latency(21), Outcome.FAIL),
        (latency(10, Evidence.ESTIMATE, low=8, high=15), Outcome.PASS),
        (latency(18, Evidence.ESTIMATE, low=12, high=25), Outcome.UNVERIFIED),
        (latency(30, Evidence.ESTIMATE, low=21, high=40), Outcome.FAIL),
        (unknown("latency_ms", "no phone here"), Outcome.UNVERIFIED),
        (None, Outcome.UNVERIFIED),
    ],
)
def test_a_budget_of_20_ms(figure, outcome):
    [verdict] = judge_budgets(profile(latency_ms=Budget(max=20)), [figure] if figure else [])
    assert verdict.outcome is outcome


def test_weaker_evidence_than_asked_for_is_unverified():
    budget = profile(latency_ms=Budget(max=20, evidence=Evidence.DEVICE))
    [verdict] = judge_budgets(budget, [latency(10, Evidence.SIMULATOR)])
    assert verdict.outcome is Outcome.UNVERIFIED
    assert "device" in verdict.why


def test_a_percentile_budget_takes_that_percentile_only():
    budget = profile(latency_ms=Budget(max=20, statistic="p99"))
    [missing] = judge_budgets(budget, [latency(10)])
    [found] = judge_budgets(budget, [latency(10, statistics=(("p50", 10.0), ("p99", 25.0)))])
    assert missing.outcome is Outcome.UNVERIFIED
    assert found.outcome is Outcome.FAIL and found.value == 25


def test_a_lower_limit():
    budget = profile(throughput_per_s=Budget(min=100))
    [slow] = judge_budgets(budget, [Figure("throughput_per_s", 99.0, Evidence.DEVICE)])
    [fast] = judge_budgets(budget, [Figure("throughput_per_s", 100.0, Evidence.DEVICE)])
    assert (slow.outcome, fast.outcome) == (Outcome.FAIL, Outcome.PASS)


def test_exit_codes_and_precedence():
    required = judge_budgets(profile(latency_ms=Budget(max=20)), [])
    advisory = judge_budgets(profile(latency_ms=Budget(max=20, required=False)), [])
    failing = judge_budgets(profile(latency_ms=Budget(max=1)), [latency(2)])
    assert exit_code(required) is ExitCode.UNVERIFIED
    assert exit_code(advisory) is ExitCode.OK
    assert exit_code((*required, *failing)) is ExitCode.BUDGET_FAILED
    assert [worst(codes) for codes in ([0, 3], [3, 1], [1, 5], [5, 4], [4, 2], [2, 130], [130, 70], [])] == [
        3, 1, 5, 4, 2, 130, 70, 0,
    ]  # fmt: skip


def quality(output: np.ndarray, reference: np.ndarray, gates: Quality, **options):
    comparisons = compare({"y": reference}, {"y": output}, class_outputs={"y": 1})
    return {item.name: item for item in judge_quality(gates, comparisons, Evidence.EXECUTOR, **options)}


REFERENCE = np.random.default_rng(3).normal(size=(40, 6))


def test_quality_gates():
    gates = Quality(min_agreement=0.9, min_cosine=0.99, min_sqnr_db=30, max_accuracy_drop=0.01)
    good = quality(REFERENCE * 1.001, REFERENCE, gates)
    assert {name: item.outcome for name, item in good.items()} == {
        "min_agreement": Outcome.PASS,
        "min_cosine": Outcome.PASS,
        "min_sqnr_db": Outcome.PASS,
        "max_accuracy_drop": Outcome.NOT_APPLICABLE,
    }
    bad = quality(-REFERENCE, REFERENCE, gates)
    assert bad["min_agreement"].outcome is bad["min_cosine"].outcome is Outcome.FAIL


def test_a_vacuous_comparison_does_not_pass():
    constant = np.repeat(REFERENCE[:1], 40, axis=0)
    found = quality(constant, constant, Quality(min_cosine=0.9))
    assert found["min_cosine"].outcome is Outcome.UNVERIFIED


def test_data_free_accuracy_is_unverified():
    found = quality(REFERENCE, REFERENCE, Quality(min_cosine=0.9), data_free=True)
    assert found["min_cosine"].outcome is Outcome.UNVERIFIED
    assert exit_code(found.values()) is ExitCode.UNVERIFIED
    allowed = quality(REFERENCE, REFERENCE, Quality(min_cosine=0.9), data_free=True, allowed=["min_cosine"])
    assert exit_code(allowed.values()) is ExitCode.OK


def test_nothing_run_is_unverified():
    [verdict] = judge_quality(Quality(min_cosine=0.9), (), Evidence.NONE)
    assert verdict.outcome is Outcome.UNVERIFIED


def test_summary_counts_passes_by_evidence():
    budgets = profile(latency_ms=Budget(max=20), size_mb=Budget(max=5), ram_kb=Budget(max=1))
    figures = [
        latency(10, Evidence.ESTIMATE, low=9, high=11),
        Figure("size_mb", 4.0, Evidence.ARTEFACT),
        Figure("ram_kb", 2.0, Evidence.SIMULATOR),
    ]
    assert summary(judge_budgets(budgets, figures)) == "2 pass: 1 artefact, 1 estimate; 1 fail"


def test_a_figure_without_evidence_cannot_have_a_value():
    with pytest.raises(ValueError, match="exactly when"):
        Figure("latency_ms", 3.0, Evidence.NONE)
    with pytest.raises(ValueError, match="band"):
        Figure("latency_ms", 3.0, Evidence.ESTIMATE)
