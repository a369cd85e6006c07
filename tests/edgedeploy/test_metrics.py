"""Metrics against values worked out by hand, and against labels as well as against the FP32 reference."""

from __future__ import annotations

import numpy as np
import pytest
import zoo

from edgedeploy import deploy
from edgedeploy.bundle.manifest import Measurements
from edgedeploy.errors import InputError
from edgedeploy.quality.metrics import (
    edit_distance,
    error_rate,
    greedy_text,
    macro_f1,
    mean_iou,
    metric_figures,
    spearman,
    top_k_accuracy,
)

rng = np.random.default_rng(3)


def test_top_k_and_f1():
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4], [0.3, 0.3, 0.4], [np.nan, 0.9, 0.1]])
    assert top_k_accuracy(scores, np.array([1, 2, 0, 0]), 1) == 0.25
    assert top_k_accuracy(scores, np.array([1, 2, 0, 0]), 2) == 0.75
    sklearn = pytest.importorskip("sklearn.metrics")
    answers, right = rng.integers(0, 4, 60), rng.integers(0, 4, 60)
    assert macro_f1(answers, right) == pytest.approx(sklearn.f1_score(right, answers, average="macro"))


def test_mean_iou_leaves_unlabelled_pixels_out():
    right = np.array([0, 0, 1, 1, -1])
    assert mean_iou(np.array([0, 1, 1, 1, 0]), right) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_text():
    assert edit_distance("kitten", "sitting") == 3
    assert error_rate(["abd", ""], ["abc", "d"]) == 0.5
    path = [0, 1, 1, 0, 1, 2, 2, 0]
    assert greedy_text(np.eye(3, dtype=np.float32)[path][None], blank=0) == (1, 1, 2)


def test_spearman_against_scipy():
    scipy = pytest.importorskip("scipy.stats")
    a, b = rng.integers(0, 9, 40), rng.integers(0, 9, 40)
    assert spearman(a[:, None], b[:, None]) == pytest.approx(scipy.spearmanr(a, b).statistic)


@pytest.mark.parametrize(
    ("kind", "shape", "options"),
    [
        ("classification", (1, 8), {"class_axis": 2}),
        ("segmentation", (1, 3, 6, 6), {"class_axis": 2}),
        ("text", (1, 12, 5), {"separator": 1}),
        ("embedding", (1, 32), {}),
        ("regression", (1, 2), {}),
    ],
)
def test_the_reference_is_perfect_and_noise_is_not(kind, shape, options):
    reference = rng.normal(size=(30, *shape)).astype(np.float32)
    same = metric_figures(kind, "y", reference, reference.copy(), None, **options)
    assert {item.drop for item in same} == {0.0} and {item.against for item in same} == {"FP32 reference"}
    noise = rng.normal(size=reference.shape).astype(np.float32)
    assert all(item.drop > 0.1 for item in metric_figures(kind, "y", reference, noise, None, **options))


def test_labels_are_the_truth_where_there_are_any():
    reference = np.eye(4, dtype=np.float32)[[0, 1, 2, 3]][:, None]
    labels = np.array([0, 1, 2, 2])
    top1 = metric_figures("classification", "y", reference, reference[[0, 1, 0, 0]], labels, class_axis=2)[0]
    assert (top1.against, top1.value, top1.reference_value, top1.drop) == ("labels", 0.5, 0.75, 0.25)
    with pytest.raises(InputError, match="labels do not fit"):
        metric_figures("classification", "y", reference, reference, np.zeros((4, 7), int), class_axis=2)


@pytest.mark.parametrize(("max_drop", "outcome"), [(1.0, "pass"), (0.0, None)])
def test_a_metric_in_deploy_toml_is_measured_and_judged(tmp_path, max_drop, outcome):
    zoo.digits_example.write(tmp_path / "model")
    config = tmp_path / "model" / "deploy.toml"
    config.write_text(f'[metric]\nkind = "classification"\ntop_k = 3\nmax_drop = {max_drop}\n')
    result = deploy(tmp_path / "model" / "model.pt", "host", output=tmp_path / "out", candidate="static-qdq")
    run = Measurements.model_validate_json((result.bundle / "measurements.json").read_bytes()).runs[0]
    figures = {item.name: item for item in run.figures}
    assert {"top1", "top3", "macro_f1"} <= set(figures)
    assert 0.5 < figures["top1"].value <= figures["top3"].value <= 1
    [verdict] = [item for item in run.verdicts if item.name == "max_metric_drop"]
    assert verdict.outcome == (outcome or ("pass" if verdict.value <= 0 else "fail"))
