"""The main job on a real trained model: verdicts, evidence, bundles, exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgedeploy import deploy as deploy_api
from edgedeploy.bundle.manifest import Manifest, Measurements
from edgedeploy.bundle.tree import hash_tree
from edgedeploy.bundle.write import UNHASHED
from edgedeploy.errors import ExitCode
from edgedeploy.progress import NoProgress


def read(bundle: Path) -> tuple[Manifest, Measurements]:
    return (
        Manifest.model_validate_json((bundle / "manifest.json").read_bytes()),
        Measurements.model_validate_json((bundle / "measurements.json").read_bytes()),
    )


def test_the_bundle_holds_a_model_that_classifies_digits(digits_bundle):
    import zoo

    manifest, _ = read(digits_bundle)
    session = onnxruntime.InferenceSession(digits_bundle / manifest.artefact.main)
    _, _, images, labels = zoo.digits_data()
    [scores] = session.run(None, {manifest.artefact.inputs[0].name: images})
    assert (scores.argmax(1) == labels).mean() > 0.95


def test_every_figure_says_how_it_was_obtained(digits_bundle):
    _, measurements = read(digits_bundle)
    [run] = measurements.runs
    evidence = {figure.name: figure.evidence for figure in run.figures}
    assert evidence["size_mb"] == "artefact"
    assert evidence["latency_ms"] == "device"
    assert run.samples == 500
    assert {verdict.name: verdict.outcome for verdict in run.verdicts}["max_accuracy_drop"] == "pass"
    assert set(measurements.stages_s) >= {"load", "capture", "data", "reference", "export", "run"}


def test_every_candidate_is_listed_with_a_reason(digits_bundle):
    manifest, _ = read(digits_bundle)
    assert {item.candidate for item in manifest.candidates} >= {"static-qdq", "float32"}
    assert [item.candidate for item in manifest.candidates if item.chosen] == [manifest.artefact.candidate]
    assert all(item.reason for item in manifest.candidates)


def test_golden_vectors_are_the_artefacts_own_outputs(digits_bundle):
    manifest, _ = read(digits_bundle)
    session = onnxruntime.InferenceSession(digits_bundle / manifest.artefact.main)
    inputs = np.load(digits_bundle / "golden" / "inputs.npz")
    outputs = np.load(digits_bundle / "golden" / "outputs.npz")
    for index, want in enumerate(outputs["output"]):
        [got] = session.run(None, {"image": inputs["image"][index : index + 1]})
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_the_manifest_names_the_hash_of_every_file(digits_bundle):
    manifest, _ = read(digits_bundle)
    assert manifest.files == hash_tree(digits_bundle, exclude=UNHASHED)


def test_two_runs_give_the_same_bytes(deploy, model, tmp_path):
    assert deploy("-t", "host", "-q", "-o", tmp_path / "one", model)[0] == 0
    shutil.copytree(tmp_path / "one" / "host", tmp_path / "two" / "host")
    assert deploy("-t", "host", "-q", "-o", tmp_path / "two", model)[0] == 0
    first, second = (hash_tree(tmp_path / name / "host", exclude=UNHASHED[1:]) for name in ("one", "two"))
    assert first == second
    assert "manifest.json" in first


def test_a_lock_repeats_the_choice_and_a_foreign_one_is_refused(deploy, model, tmp_path):
    assert deploy("-t", "host", "-q", "-o", tmp_path / "one", "--candidate", "static-qdq", model)[0] == 0
    lock = tmp_path / "one" / "host" / "deploy.lock"
    code, _, _ = deploy("-t", "host", "-q", "-o", tmp_path / "two", "--lock", lock, model)
    assert code == 0
    assert read(tmp_path / "two" / "host")[0].artefact.candidate == "static-qdq"
    code, _, error = deploy("-t", "host", "-q", "-o", tmp_path / "two", "--lock", lock, "--budget", "size_mb=9", model)
    assert code == 2 and "made for another" in error


def test_a_failed_budget_ends_in_1_and_leaves_the_good_bundle(deploy, model, tmp_path):
    out = tmp_path / "out"
    assert deploy("-t", "host", "-q", "-o", out, model)[0] == 0
    good = hash_tree(out / "host")
    code, text, _ = deploy("-t", "host", "-o", out, "--budget", "size_mb=0.000001", model)
    assert code == 1
    assert "fail" in text and "size_mb" in text
    assert hash_tree(out / "host") == good
    assert read(out / "host.failed")[1].runs[0].exit_code == 1
    assert deploy("-t", "host", "-q", "-o", out, model)[0] == 0
    assert not (out / "host.failed").exists()


def test_proof_that_nobody_can_give_ends_in_3(deploy, model, tmp_path):
    arguments = ["-t", "host", "-q", "-o", tmp_path / "out", "--budget", "power_mw=500"]
    assert deploy(*arguments, model)[0] == 3
    assert (tmp_path / "out" / "host.unverified").is_dir()
    assert deploy(*arguments, "--allow-unverified", "power", model)[0] == 0


def test_what_may_stay_unverified_may_not_fail(deploy, model, tmp_path):
    arguments = ["-t", "host", "-q", "--candidate", "float32", "-o", tmp_path / "out", model]
    for key, limit in (("latency", "latency_ms=0.000001"), ("size_mb", "size_mb=0.000001")):
        assert deploy(*arguments, "--budget", limit, "--allow-unverified", key)[0] == 1


def test_the_command_never_lowers_the_evidence_that_a_profile_asks_for(deploy, model, tmp_path):
    (tmp_path / "mine.toml").write_text(
        'extends = "x86-avx2"\n[device]\nname = "mine"\n[budget]\nlatency_ms = { max = 50, evidence = "device" }\n'
    )
    code, _, error = deploy(
        "-t", tmp_path / "mine.toml", "--require", "latency=estimate", "-o", tmp_path / "out", model
    )
    assert code == 2 and "would lower the evidence" in error and "--allow-unverified" in error


def test_a_foreign_isa_gives_numerics_but_no_latency(deploy, model, tmp_path):
    code, _, _ = deploy("-t", "raspberrypi4", "-q", "-o", tmp_path / "out", "--budget", "latency_ms=none", model)
    [bundle] = (tmp_path / "out").iterdir()
    run = read(bundle)[1].runs[0]
    assert run.evidence == "executor"
    assert all(figure.evidence in ("artefact", "estimate", "none") for figure in run.figures if figure.name != "ram_kb")
    assert code in (0, 3)


def test_an_estimated_latency_says_where_the_time_goes(deploy, model, tmp_path):
    assert deploy("-t", "stm32l4r5", "-q", "-o", tmp_path / "out", model)[0] in (0, 3)
    [bundle] = (tmp_path / "out").iterdir()
    run = read(bundle)[1].runs[0]
    [latency] = [figure for figure in run.figures if figure.name == "latency_ms"]
    assert latency.evidence == "estimate" and latency.low < latency.value < latency.high
    shares = [layer["share"] for layer in run.details["slowest_layers"]]
    assert shares == sorted(shares, reverse=True) and 0.5 < sum(shares) <= 1.01
    report = (bundle / "report.md").read_text()
    assert "Where the time goes" in report and "body.0/Conv" in report
    assert "![time of the slowest layers](layers.svg)" in report
    picture = (bundle / "layers.svg").read_text(encoding="utf-8")
    assert "body.0/Conv" in picture and picture.count('height="18"') == len(shares)
    assert "layers.svg" in read(bundle)[0].files
    rest = run.details["overhead_us"]
    assert rest > 0 and f"besides {rest} µs" in report and f"besides {rest} µs" in picture
    layers_us = sum(layer["us"] for layer in run.details["slowest_layers"])
    assert layers_us + rest <= latency.value * 1e3 * 1.01


def test_without_data_accuracy_stays_unverified(deploy, model, tmp_path):
    for name in ("model.calib.npz", "model.eval.npz", "deploy.toml"):
        (model.parent / name).unlink()
    code, _, error = deploy("-t", "host", "-o", tmp_path / "out", model)
    assert code == 3
    assert "data-free" in error
    manifest, measurements = read(tmp_path / "out" / "host.unverified")
    assert manifest.data.data_free
    quality = [item for item in measurements.runs[0].verdicts if item.kind == "quality"]
    assert quality and all(item.outcome in ("unverified", "not applicable") for item in quality)


def test_a_slice_is_held_back_where_there_is_no_evaluation_data(deploy, model, tmp_path):
    (model.parent / "model.eval.npz").unlink()
    (model.parent / "deploy.toml").unlink()
    deploy("-t", "host", "-q", "-o", tmp_path / "out", model)
    [bundle] = (tmp_path / "out").iterdir()
    data = read(bundle)[0].data
    assert data.held_back
    assert data.calibration_samples + data.evaluation_samples == 48
    assert data.evaluation_samples >= 5


def test_several_targets_share_one_run(deploy, model, tmp_path):
    code, text, _ = deploy("-t", "host,x86-avx2", "--json", "-o", tmp_path / "out", model)
    found = json.loads(text)
    assert set(found["targets"]) == {"host", "x86-avx2"}
    assert found["exit_code"] == code
    for target in found["targets"].values():
        Manifest.model_validate(target["manifest"])


def test_the_python_api(model, tmp_path):
    result = deploy_api(model, "host", output=tmp_path / "out", budgets=("latency_ms=1000",))
    assert result.exit_code is ExitCode.OK
    assert result.bundle == tmp_path / "out" / "host"
    assert {verdict.name for verdict in result.verdicts} >= {"size_mb", "latency_ms"}


def test_the_python_api_takes_a_callable(model, tmp_path):
    import zoo

    def samples():
        for image in zoo.digits_data()[0][:40]:
            yield {"image": image[None]}

    (model.parent / "deploy.toml").unlink()
    result = deploy_api(model, "host", output=tmp_path / "out", calibration=samples)
    assert read(result.bundle)[0].data.calibration_samples == 40


class InterruptedAt(NoProgress):
    """Ctrl-C in the instant a stage announces itself."""

    def __init__(self, words: str) -> None:
        self.words = words
        self.reached = False

    def note(self, text: str) -> None:
        if text.startswith(self.words):
            self.reached = True
            raise KeyboardInterrupt

    def track(self, items, *, what, total=None):
        for index, item in enumerate(items):
            if index == 1:
                self.note(what)
            yield item


@pytest.mark.parametrize("stage", ["Checking data", "Capturing", "FP32 reference", "Calibrating", "host: trying"])
def test_ctrl_c_in_each_stage_leaves_the_old_bundle(stage, deploy, model, tmp_path):
    out = tmp_path / "out"
    assert deploy("-t", "host", "-q", "-o", out, model)[0] == 0
    before = hash_tree(out)
    progress = InterruptedAt(stage)
    with pytest.raises(KeyboardInterrupt):
        deploy_api(model, "host", output=out, progress=progress, candidate="static-qdq")
    assert progress.reached
    assert hash_tree(out) == before


def test_velas_own_figures_pass_through_to_the_report(deploy, model, tmp_path):
    assert deploy("-t", "cortex-m55-ethos-u55-128", "-q", "-o", tmp_path / "out", model)[0] in (0, 1, 3)
    [bundle] = (tmp_path / "out").iterdir()
    manifest, measurements = read(bundle)
    [latency] = [figure for figure in measurements.runs[0].figures if figure.name == "latency_ms"]
    vela = manifest.artefact.details["vela"]
    clock_hz = 1e3 * vela["cycles"] / latency.value
    assert latency.evidence == "estimate" and latency.how.startswith("Vela's model")
    assert 1e8 < clock_hz < 1e9 and latency.low < latency.value < latency.high
    assert "Vela's model" in (bundle / "report.md").read_text()


def test_a_folder_that_is_no_bundle_is_not_replaced(deploy, model, tmp_path):
    """Refused before anything is loaded; what lies there stays."""
    for name in ("host", "host.failed", "host.unverified"):
        mine = tmp_path / name / "project" / name
        mine.mkdir(parents=True)
        (mine / "thesis.txt").write_text("three years of work")
        code, _, error = deploy("-t", "host", "-o", mine.parent, model)
        assert code == 2 and "no bundle of edgedeploy" in error, error
        assert [path.name for path in mine.parent.rglob("*")] == [name, "thesis.txt"]
