"""Every mistake a user can make: exit code 2, a sentence that helps, nothing written."""

from __future__ import annotations

import pickle
import signal
import zipfile

import numpy as np
import onnx
import pytest
import torch
import zoo
from onnx import numpy_helper
from processes import halting


class Marker:
    """A pickle that would create a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.fixture
def refused(deploy, tmp_path):
    """Run the command, expect exit code 2, these words, and nothing written; returns the message."""

    def run(*arguments, words):
        out = tmp_path / "out"
        code, _, error = deploy("-t", "host", "-o", out, *arguments)
        assert code == 2, error
        for word in words:
            assert word in error
        assert "Traceback" not in error
        assert not out.exists()
        return error

    return run


def test_missing_file(refused, tmp_path):
    refused(tmp_path / "none.pt", words=["no model file"])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 this is no zip", b"\x80\x02garbage", b"<html>log in</html>"])
def test_damaged_files(refused, tmp_path, content):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    refused(path, words=["error:"])


def test_a_truncated_archive(refused, digits_folder, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes((digits_folder / "model.pt").read_bytes()[:-400])
    refused(path, words=["error:"])


def test_a_malicious_pickle_does_not_run(refused, tmp_path):
    marker = tmp_path / "ran"
    torch.save({"weights": Marker(marker)}, tmp_path / "model.pt")
    refused(tmp_path / "model.pt", words=["open"])
    assert not marker.exists()


def test_a_malicious_pt2_does_not_run(refused, digits_folder, tmp_path):
    marker, hostile = tmp_path / "ran", tmp_path / "model.pt"
    poisoned = 0
    with zipfile.ZipFile(digits_folder / "model.pt") as source, zipfile.ZipFile(hostile, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if "sample_inputs" in name:
                data, poisoned = pickle.dumps(Marker(marker)), poisoned + 1
            target.writestr(name, data)
    assert poisoned
    refused(hostile, words=["error:"])
    assert not marker.exists()


def test_a_malicious_npz_does_not_run(refused, model, tmp_path):
    marker = tmp_path / "ran"
    path = tmp_path / "calib.npz"
    np.savez(path, image=np.array([Marker(marker)], dtype=object))
    refused("--calibration", path, model, words=["calib.npz"])
    assert not marker.exists()


def weights(tmp_path, change=lambda state: None):
    state = zoo.digits_cnn().state_dict()
    state = {name: value.clone() for name, value in state.items()}
    change(state)
    torch.save(state, tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


INPUT = ("--input", "image:1x1x8x8:float32")


def test_weights_without_a_factory(refused, tmp_path):
    refused(weights(tmp_path), *INPUT, words=["--model"])


@pytest.mark.parametrize("factory", ["digits_cnn:NoSuchNet", "no_such_module:build", "digits_cnn:data", "nonsense"])
def test_a_wrong_factory(refused, tmp_path, factory):
    refused(weights(tmp_path), "--model", factory, *INPUT, words=["error:"])


def test_keys_that_do_not_fit(refused, tmp_path):
    path = weights(tmp_path, lambda state: state.update({"head.bias2": state.pop("head.bias")}))
    refused(path, "--model", "digits_cnn:DigitsCnn", *INPUT, words=["head.bias", "head.bias2"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(refused, tmp_path, value):
    path = weights(tmp_path, lambda state: state["head.weight"].view(-1).__setitem__(0, value))
    refused(path, "--model", "digits_cnn:DigitsCnn", *INPUT, words=["head.weight"])


def test_nan_weights_in_an_onnx_file(refused, model):
    proto = onnx.load(model)
    tensor = next(item for item in proto.graph.initializer if len(item.dims) == 4)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, model)
    refused(model, words=[tensor.name])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"picture": np.zeros((4, 1, 8, 8), np.float32)}, ["picture", "image"]),
        ({"image": np.zeros((4, 3, 8, 8), np.float32)}, ["image", "8"]),
        ({"image": np.zeros((0, 1, 8, 8), np.float32)}, ["no samples"]),
        ({"image": np.zeros((4, 1, 8, 8), np.int64)}, ["image", "float32"]),
        ({"image": np.full((4, 1, 8, 8), np.nan, np.float32)}, ["image", "NaN"]),
        ({"image": np.zeros((4, 1, 8, 8), np.float32), "labels": np.zeros(3)}, ["labels"]),
    ],
)
def test_data_that_does_not_fit(refused, model, tmp_path, arrays, words):
    np.savez(tmp_path / "calib.npz", **arrays)
    refused("--calibration", tmp_path / "calib.npz", model, words=words)


def test_token_ids_fed_as_floats(refused, tmp_path):
    class Embedder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(10, 4)

        def forward(self, ids):
            return self.table(ids).sum(1)

    program = torch.export.export(Embedder(), (torch.zeros(1, 5, dtype=torch.int64),))
    torch.export.save(program, tmp_path / "model.pt2")
    np.savez(tmp_path / "calib.npz", ids=np.zeros((4, 5), np.float32))
    refused("--calibration", tmp_path / "calib.npz", tmp_path / "model.pt2", words=["ids", "int64"])


def test_a_folder_with_a_broken_image(refused, model, tmp_path):
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("L", (8, 8)).save(folder / "good.png")
    (folder / "broken.png").write_bytes((folder / "good.png").read_bytes()[:30])
    (model.parent / "deploy.toml").write_text("[preprocessing.image]\ncrop = [8, 8]\n")
    refused("--calibration", folder, model, words=["broken.png"])


def test_evaluation_on_calibration_samples(refused, model):
    data = model.parent / "model.calib.npz"
    refused("--calibration", data, "--eval", data, model, words=["also calibration samples"])


def test_an_unknown_target(deploy, model, tmp_path):
    code, _, error = deploy("-t", "raspbery-pi4", "-o", tmp_path / "out", model)
    assert code == 2 and "raspberrypi4" in error and not (tmp_path / "out").exists()


def test_a_profile_with_an_unknown_key(deploy, model, tmp_path):
    (tmp_path / "mine.toml").write_text('extends = "host"\n[hardware]\nclok_mhz = 4\n')
    code, _, error = deploy("-t", tmp_path / "mine.toml", "-o", tmp_path / "out", model)
    assert code == 2 and "clok_mhz" in error and "clock_mhz" in error


def test_no_target(deploy, model, tmp_path):
    code, _, error = deploy("-o", tmp_path / "out", model)
    assert code == 2 and "deploy targets" in error


def test_an_output_that_is_a_file(deploy, model, tmp_path):
    (tmp_path / "out").write_text("mine")
    code, _, error = deploy("-t", "host", "-o", tmp_path / "out", model)
    assert code == 2 and "is a file" in error
    assert (tmp_path / "out").read_text() == "mine"


def test_an_output_that_cannot_be_written(deploy, model):
    code, _, error = deploy("-t", "host", "-o", "/proc/out", model)
    assert code == 2 and "can't be written" in error


@pytest.mark.parametrize(
    "options",
    [
        ["--no-such-option"],
        ["--option", "nonsense"],
        ["--budget", "latency_ms"],
        ["--candidate", "no-such-candidate"],
        ["--option", "no_such_option=1"],
        ["--method", "guess"],
        ["--device", "carrier-pigeon:7"],
        ["--input", "image:zero:float32"],
    ],
)
def test_options_that_make_no_sense(refused, model, options):
    refused(*options, model, words=[])


def test_a_found_config_never_names_code(refused, model):
    (model.parent / "deploy.toml").write_text('[model]\nfactory = "os:system"\n')
    refused(model, words=["names code", "--config"])
    (model.parent / "deploy.toml").write_text('[data]\ncalibration = "os:getcwd"\n')
    refused(model, words=["names code", "--config"])


def test_a_config_with_an_unknown_key(refused, model):
    (model.parent / "deploy.toml").write_text("[quality]\nmin_agrement = 0.9\n")
    refused(model, words=["min_agrement", "min_agreement"])


def test_errors_as_json(deploy, tmp_path):
    import json

    code, out, _ = deploy("-t", "host", "--json", "-o", tmp_path / "out", tmp_path / "none.pt")
    found = json.loads(out)
    assert code == found["exit_code"] == 2
    assert "no model file" in found["error"]["what"]


STAGES = ["Checking data", "Capturing", "FP32 reference", "Calibrating", "host: trying"]


@pytest.mark.parametrize(
    ("number", "code", "stage"),
    [
        (signal.SIGINT, 130, "FP32 reference"),
        (signal.SIGTERM, 130, "Calibrating"),
        *((signal.SIGKILL, -9, stage) for stage in STAGES),
    ],
)
def test_signals_leave_the_old_bundle(number, code, stage, deploy, model, tmp_path):
    """A real signal to a real process, in the middle of a stage."""
    from edgedeploy.bundle.tree import hash_tree

    out = tmp_path / "out"
    assert deploy("-t", "host", "-q", "-o", out, "--candidate", "static-qdq", model)[0] == 0
    before = hash_tree(out)
    child = halting(stage, "-t", "host", "--candidate", "static-qdq", "-o", out, model)
    child.send_signal(number)
    child.communicate()
    assert child.returncode == code
    assert {name: value for name, value in hash_tree(out).items() if not name.startswith(".edgedeploy")} == before
    assert deploy("-t", "host", "-q", "-o", out, model)[0] == 0
    assert not list(out.glob(".edgedeploy*"))
