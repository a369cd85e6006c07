"""The other commands, typed as a user types them."""

from __future__ import annotations

import json
import shutil

import pytest
from bundles import reseal


@pytest.fixture
def bundle(digits_bundle, tmp_path):
    shutil.copytree(digits_bundle, tmp_path / "host")
    return tmp_path / "host"


def test_verify_accepts_what_was_built(deploy, bundle):
    code, out, _ = deploy("verify", bundle)
    assert code == 0
    assert "every file is as it was built" in out


@pytest.mark.parametrize("name", ["artefact/model.onnx", "golden/inputs.npz", "deploy.lock", "manifest.json"])
def test_verify_names_a_changed_file(deploy, bundle, name):
    content = bytearray((bundle / name).read_bytes())
    content[-2] ^= 1
    (bundle / name).write_bytes(content)
    code, _, error = deploy("verify", bundle)
    assert code == 2
    assert name in error or "not a bundle" in error


def test_verify_names_added_and_missing_files(deploy, bundle):
    (bundle / "artefact" / "extra.bin").write_text("x")
    (bundle / "deploy.lock").unlink()
    code, _, error = deploy("verify", bundle)
    assert code == 2
    assert "artefact/extra.bin was added" in error and "deploy.lock is missing" in error


def test_verify_fails_where_the_model_computes_something_else(deploy, bundle):
    """An artefact that was swapped together with its hashes still has to give the golden outputs."""
    import onnx
    from onnx import numpy_helper

    path = bundle / "artefact" / "model.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4:  # float or integer weights: which candidate is the fastest differs between machines
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, path)
    reseal(bundle)
    code, out, _ = deploy("verify", bundle)
    assert code == 1
    assert "golden_vectors" in out and "fail" in out


def test_verify_on_a_device_appends_a_run_and_changes_nothing_else(deploy, bundle):
    from edgedeploy.bundle.tree import hash_tree
    from edgedeploy.bundle.write import UNHASHED

    before = hash_tree(bundle, exclude=UNHASHED[1:])
    code, out, _ = deploy("verify", bundle, "--device", "local", "--require", "latency=device", "--json")
    assert code == 0
    assert {item["name"] for item in json.loads(out)["verdicts"]} >= {"golden_vectors", "latency_ms"}
    assert hash_tree(bundle, exclude=UNHASHED[1:]) == before
    runs = json.loads((bundle / "measurements.json").read_text())["runs"]
    assert [run["device"] for run in runs] == ["this host", "local"]
    assert deploy("verify", bundle)[0] == 0


def test_verify_of_something_else(deploy, tmp_path):
    code, _, error = deploy("verify", tmp_path)
    assert code == 2 and "is not a bundle" in error


def test_targets_lists_and_explains(deploy):
    code, out, _ = deploy("targets")
    assert code == 0 and "raspberrypi5" in out and "snapdragon888" in out
    code, out, _ = deploy("targets", "raspberrypi5")
    assert code == 0 and "latency_ms" in out and "source of" in out
    code, out, _ = deploy("targets", "host", "--json")
    assert json.loads(out)["device"]["class"] == "desktop"
    code, _, error = deploy("targets", "raspberypi5")
    assert code == 2 and "raspberrypi5" in error


def test_inspect_says_what_a_file_holds(deploy, digits_bundle, digits_folder, model):
    assert "static-qdq" in deploy("inspect", digits_bundle)[1] or "float32" in deploy("inspect", digits_bundle)[1]
    assert "exported_program" in deploy("inspect", digits_folder / "model.pt")[1]
    out = deploy("inspect", model, "--layers")[1]
    assert "235,328 multiply-accumulates" in out and "Conv" in out
    code, _, error = deploy("inspect", model.parent / "none")
    assert code == 2 and "nothing at" in error


def test_inspect_reads_what_the_vendor_backends_make(deploy, model, tmp_path):
    assert deploy("-t", "stm32l4r5", "-q", "-o", tmp_path / "out", model)[0] in (0, 3)
    [path] = (tmp_path / "out").rglob("*.tflite")
    out = deploy("inspect", path, "--layers")[1]
    assert "2 CONV_2D" in out or "3 CONV_2D" in out
    assert "DEPTHWISE_CONV_2D" in out and "constant bytes" in out


def test_calibrate_saves_a_table_that_table_shows_and_compares(deploy, model, tmp_path):
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    assert deploy("calibrate", model, "--out", one, "-q")[0] == 0
    assert deploy("calibrate", model, "--out", two, "-q", "--method", "minmax")[0] == 0
    code, out, _ = deploy("table", one)
    assert code == 0 and "calibration samples" in out and "image" in out
    assert "same ranges" in deploy("table", one, one)[1]
    assert "before" in deploy("table", one, two)[1]
    code, _, error = deploy("calibrate", model, "--out", tmp_path / "none" / "t.npz")
    assert code == 2 and "can't be written" in error
    code, _, error = deploy("table", model)
    assert code == 2 and "error:" in error


def test_layers_ranks_what_hurts(deploy, model, tmp_path):
    code, out, _ = deploy("layers", model, "--scheme", "tflite", "--plot", tmp_path / "layers.png", "-q")
    assert code == 0
    assert "SQNR dB" in out and "Conv" in out
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")
    code, _, error = deploy("layers", model, "--scheme", "int3")
    assert code == 2 and "qnn-a8w8" in error


def test_a_cache_makes_the_second_run_skip_calibration(deploy, model, tmp_path):
    arguments = [
        "-t",
        "host",
        "--cache",
        tmp_path / "cache",
        "--candidate",
        "static-qdq",
        "-o",
        tmp_path / "out",
        model,
    ]
    first = deploy(*arguments)[2]
    second = deploy(*arguments)[2]
    assert "Calibrating" in first
    assert "Calibrating" not in second
