"""Which candidate is taken, and the reasons given for the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedeploy.evidence import Evidence, Figure
from edgedeploy.interfaces import Artefact, RunResult, Selection
from edgedeploy.judge import Outcome, Verdict
from edgedeploy.tensors import Contract
from edgedeploy.trial import Trial, choose, records


def trial(name, time_ms=None, failed=(), busy=1.0):
    artefact = Artefact(name, Path(), Path("m"), Contract((), ()), "int8")
    figures = ()
    if time_ms:
        figures = (Figure("latency_ms", time_ms * busy, Evidence.DEVICE, statistics=(("min", time_ms),)),)
    verdicts = tuple(
        Verdict(gate, "budget" if gate.endswith("_ms") or gate == "size_mb" else "quality", "", 1.0, None, None,
                Evidence.DEVICE, Outcome.FAIL, True)
        for gate in failed
    )  # fmt: skip
    return Trial(artefact, RunResult({}, Evidence.DEVICE), figures, (), verdicts)


def taken(*trials, selection=Selection.FASTEST):
    return choose(trials, selection).artefact.candidate


def test_the_fastest_is_taken():
    assert taken(trial("a", 20), trial("b", 10)) == "b"


def test_within_ten_percent_the_order_decides():
    assert taken(trial("a", 10.9), trial("b", 10)) == "a"
    assert taken(trial("a", 11.1), trial("b", 10)) == "b"


def test_a_busy_machine_does_not_decide():
    assert taken(trial("a", 10, busy=9), trial("b", 20)) == "a"


@pytest.mark.parametrize("gate", ["min_agreement", "size_mb"])
def test_speed_does_not_buy_quality_or_size(gate):
    assert taken(trial("a", 20), trial("b", 10, failed=[gate])) == "a"


def test_the_fastest_counts_even_where_all_miss_the_latency_budget():
    assert taken(trial("a", 20, failed=["latency_ms"]), trial("b", 10, failed=["latency_ms"])) == "b"


def test_where_nothing_passes_the_least_bad_is_taken():
    bad = trial("a", 5, failed=["min_agreement", "size_mb"])
    assert taken(bad, trial("b", 10, failed=["min_agreement"])) == "b"


def test_without_times_the_order_decides():
    assert taken(trial("a"), trial("b")) == "a"


def test_first_passing():
    order = [trial("a", failed=["min_cosine"]), trial("b")]
    assert taken(*order, selection=Selection.FIRST_PASSING) == "b"


def test_reasons():
    trials = [trial("a", 10), trial("b", 20), trial("c", 10.5), trial("d", 5, failed=["min_cosine"]), trial("e")]
    assert {item.candidate: item.reason for item in records(trials, trials[0])} == {
        "a": "chosen",
        "b": "slower than a",
        "c": "within 10 % of a, which comes first in the fixed order",
        "d": "failed min_cosine",
        "e": "after a in the fixed order; no latency is known",
    }
