"""Golden vectors on another machine: rounding is allowed, a part of the output that says something else is not."""

from __future__ import annotations

import numpy as np
import pytest

from edgedeploy.bundle.replay import judge_replay
from edgedeploy.errors import ToolFailedError
from edgedeploy.evidence import Evidence
from edgedeploy.judge import Outcome

RNG = np.random.default_rng(0)
DETECTIONS = np.concatenate([RNG.uniform(0, 640, (8, 1, 4, 50)), RNG.uniform(0, 0.9, (8, 1, 3, 50))], axis=2)
SCORES = RNG.normal(size=(8, 1, 10)).astype(np.float32)


def outcome(recorded, given):
    return judge_replay({"y": recorded}, {"y": given}, Evidence.DEVICE).outcome


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


SAME = {
    "the same": (SCORES, SCORES),
    "more vectors": (SCORES, np.concatenate([SCORES, SCORES])),
    "rounding": (SCORES, SCORES * (1 + 1e-4)),
    "detections": (DETECTIONS, DETECTIONS * (1 + 1e-4)),
    "minus infinity by design": (changed(SCORES, (0, 0, 3), -np.inf), changed(SCORES, (0, 0, 3), -np.inf)),
    "integers": (np.arange(8)[:, None], np.arange(8)[:, None]),
    "a constant": (np.full((8, 1), 3.0), np.full((8, 1), 3.0)),
    "one vector": (SCORES[:1], SCORES[:1]),
    "scalars": (SCORES[:, 0, 0], SCORES[:, 0, 0]),
}
OTHER = {
    "scores dead beside boxes": (DETECTIONS, changed(DETECTIONS, np.s_[:, :, 4:], 0.0)),
    "scores stale beside boxes": (DETECTIONS, changed(DETECTIONS, np.s_[:, :, 4:], DETECTIONS[:1, :, 4:])),
    "scaled": (SCORES, SCORES * 1.1),
    "shifted": (SCORES, SCORES + 0.1),
    "one vector wrong": (SCORES, changed(SCORES, 5, SCORES[4])),
    "classes in another order": (SCORES, SCORES[..., ::-1]),
    "not a number": (SCORES, changed(SCORES, (3, 0, 3), np.nan)),
    "recorded not a number": (changed(SCORES, (3, 0, 3), np.nan), SCORES),
    "both not a number": (SCORES * np.nan, SCORES * np.nan),
    "infinite": (SCORES, changed(SCORES, (3, 0, 3), np.inf)),
    "the other infinity": (changed(SCORES, (0, 0, 3), -np.inf), changed(SCORES, (0, 0, 3), np.inf)),
    "finite for infinite": (changed(SCORES, (0, 0, 3), -np.inf), changed(SCORES, (0, 0, 3), -1e30)),
    "all infinite": (SCORES * np.inf, SCORES * np.inf),
    "constant": (SCORES, np.full_like(SCORES, SCORES.mean())),
    "another constant": (np.full((8, 1), 3.0), np.full((8, 1), 4.0)),
    "no values": (np.zeros((8, 0)), np.zeros((8, 0))),
}


@pytest.mark.parametrize("what", SAME)
def test_the_same_outputs_pass(what):
    assert outcome(*SAME[what]) is Outcome.PASS


@pytest.mark.parametrize("what", OTHER)
def test_other_outputs_never_pass(what):
    assert outcome(*OTHER[what]) is Outcome.FAIL


@pytest.mark.parametrize("given", [{}, {"z": SCORES}, {"y": SCORES[:3]}, {"y": SCORES[..., :3]}])
def test_outputs_that_are_missing(given):
    with pytest.raises(ToolFailedError):
        judge_replay({"y": SCORES}, given, Evidence.DEVICE)


def test_nothing_recorded_never_passes():
    assert judge_replay({}, {"y": SCORES}, Evidence.DEVICE).outcome is Outcome.FAIL
