"""Comparisons with the reference: right figures, and no credit for a comparison that proves nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgedeploy.compare import compare, wilson_interval
from edgedeploy.errors import ToolFailedError

rng = np.random.default_rng(7)
REFERENCE = rng.normal(size=(50, 10)).astype(np.float32)


def one(reference, output, **options):
    [found] = compare({"y": reference}, {"y": output}, **options)
    return found


def test_identical_outputs():
    found = one(REFERENCE, REFERENCE.copy(), class_outputs={"y": 1})
    assert found.sqnr_db == math.inf
    assert found.cosine_min == pytest.approx(1)
    assert found.agreement == 1
    assert found.max_abs_error == 0
    assert found.vacuous == ""


def test_figures_agree_with_their_definitions():
    noisy = REFERENCE + 0.1 * rng.normal(size=REFERENCE.shape).astype(np.float32)
    found = one(REFERENCE, noisy, class_outputs={"y": 1})
    error = (noisy - REFERENCE).astype(np.float64)
    signal = REFERENCE.astype(np.float64)
    assert found.total_sqnr_db == pytest.approx(10 * np.log10((signal**2).sum() / (error**2).sum()))
    variance = signal.var(0, ddof=1).mean()
    assert found.sqnr_db == pytest.approx(10 * np.log10(variance / (error**2).mean()))
    assert found.agreement == pytest.approx((noisy.argmax(1) == REFERENCE.argmax(1)).mean())
    assert found.max_abs_error == pytest.approx(np.abs(error).max())
    deviation = signal - signal.mean(0)
    assert found.error_to_spread == pytest.approx(np.sqrt((error**2).sum() / (deviation**2).sum()))


def test_an_output_that_hardly_varies_is_reported_as_vacuous():
    constant = np.repeat(REFERENCE[:1], 50, axis=0) * (1 + 1e-7 * rng.normal(size=(50, 1)))
    found = one(constant, constant * 1.0001, class_outputs={"y": 1})
    assert found.cosine_min > 0.999999
    assert "hardly varies" in found.vacuous


def test_one_class_for_every_sample_is_vacuous_agreement():
    lopsided = REFERENCE.copy()
    lopsided[:, 3] += 100
    found = one(lopsided, lopsided + 0.5, class_outputs={"y": 1})
    assert found.agreement == 1
    assert "same class" in found.vacuous


def test_one_sample_proves_nothing():
    assert "one sample" in one(REFERENCE[:1], REFERENCE[:1]).vacuous


def test_accuracy_needs_labels():
    labels = REFERENCE.argmax(1)
    labels[:5] = (labels[:5] + 1) % 10
    found = one(REFERENCE, REFERENCE, class_outputs={"y": 1}, labels={"y": labels})
    assert found.accuracy == found.reference_accuracy == 0.9
    assert one(REFERENCE, REFERENCE, class_outputs={"y": 1}).accuracy is None


def test_segmentation_counts_positions():
    maps = rng.normal(size=(4, 3, 5, 5)).astype(np.float32)
    changed = maps.copy()
    changed[0, :, 0, 0] = changed[0, ::-1, 0, 0]
    found = one(maps, changed, class_outputs={"y": 1})
    assert found.agreement == pytest.approx((maps.argmax(1) == changed.argmax(1)).mean())


def test_integer_outputs_are_compared_for_equality():
    found = one(np.arange(10).reshape(5, 2), np.arange(10).reshape(5, 2) + np.eye(5, 2, dtype=int))
    assert found.identical == 0.8
    assert found.sqnr_db is None


def test_a_prefix_of_the_samples_is_enough():
    assert one(REFERENCE, REFERENCE[:20]).samples == 20


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (REFERENCE[:, :5], "another shape"),
        (REFERENCE[:0], "another shape"),
    ],
)
def test_outputs_that_cannot_be_compared(output, words):
    with pytest.raises(ToolFailedError, match=words):
        one(REFERENCE, output)


def test_a_missing_output_is_named():
    with pytest.raises(ToolFailedError, match="did not give the output"):
        compare({"y": REFERENCE, "z": REFERENCE}, {"y": REFERENCE})


def test_wilson_interval_against_published_values():
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81/263 gives 0.2553 to 0.3662.
    low, high = wilson_interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson_interval(10, 10)[1] == pytest.approx(1)


def test_nan_is_counted_and_never_passes():
    from edgedeploy.device_profiles.schema import Quality
    from edgedeploy.evidence import Evidence
    from edgedeploy.judge import Outcome, judge_quality

    output = REFERENCE.copy()
    output[3, 0] = np.nan
    found = one(REFERENCE, output)
    assert found.broken_samples == 1
    [verdict] = judge_quality(Quality(), [found], Evidence.SIMULATOR)
    assert verdict.name == "finite_outputs" and verdict.outcome is Outcome.FAIL and verdict.required


def test_infinite_figures_are_written_as_json_and_read_back():
    import json

    from edgedeploy.bundle.manifest import Measurement, VerdictRecord, to_json

    found = one(REFERENCE, REFERENCE.copy())
    verdict = VerdictRecord(
        name="n", kind="k", limit="", value=math.nan, evidence="none", outcome="fail", required=True
    )
    record = Measurement(
        at="", device="", evidence="", samples=50, figures=[], comparisons=[vars(found)], verdicts=[verdict],
        exit_code=0, notes=[], details={},
    )  # fmt: skip
    read = json.loads(to_json(record), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert float(read["comparisons"][0]["sqnr_db"]) == math.inf
    assert math.isnan(float(read["verdicts"][0]["value"]))
    assert math.isnan(Measurement.model_validate(read).verdicts[0].value)
