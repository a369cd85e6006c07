"""Every key of deploy.toml has an effect that a user can see."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel

from edgedeploy.config import Config
from edgedeploy.device_profiles.schema import Quality

#: deploy.toml with every key that an ONNX Runtime target shows, and where its effect stands in the manifest.
TEXT = """
targets = ["host"]
[model]
name = "gate-camera"
labels = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]
author = "Ada"
license = "MIT"
version = "2.1"
[preprocessing.image]
scale = 0.5
color = "gray"
[data]
calibration = "cal.npz"
evaluation = "eva.npz"
calibration_samples = 40
evaluation_samples = 30
[metric]
output = "{output}"
kind = "classification"
[quality]
min_agreement = 0.5
[options]
mixed_precision = false
"""
EFFECTS = {
    "targets": lambda manifest: manifest["target"] == "host",
    "model.name": lambda manifest: manifest["model"]["name"] == "gate-camera",
    "model.labels": lambda manifest: manifest["artefact"]["labels"][2] == "c",
    "model.author": lambda manifest: manifest["model"]["author"] == "Ada",
    "model.license": lambda manifest: manifest["model"]["license"] == "MIT",
    "model.version": lambda manifest: manifest["model"]["version"] == "2.1",
    "preprocessing": lambda manifest: manifest["artefact"]["preprocessing"]["image"]["scale"] == 0.5,
    "data.calibration": lambda manifest: manifest["data"]["calibration_sha256"],
    "data.calibration_samples": lambda manifest: manifest["data"]["calibration_samples"] == 40,
    "data.evaluation": lambda manifest: not manifest["data"]["held_back"],
    "data.evaluation_samples": lambda manifest: manifest["data"]["evaluation_samples"] == 30,
    "quality": lambda manifest: manifest["profile"]["quality"]["min_agreement"] == 0.5,
    "options": lambda manifest: manifest["options"] == {"mixed_precision": "False"},
}
#: Keys whose effect other tests hold: how a file without shapes is loaded (test_bad_input), what the outputs mean
#: (here, test_metrics) and which of them are fed back (test_states).
ELSEWHERE = {
    "model.factory", "model.inputs", "metric.output", "metric.kind", "metric.max_drop", "metric.top_k", "metric.blank",
    "metric.separator", "state",
}  # fmt: skip


def keys() -> set[str]:
    found = set()
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel) and section is not Quality:
            found |= {f"{name}.{key}" for key in section.model_fields}
        else:
            found.add(name)
    return found


@pytest.fixture
def manifest(deploy, model, tmp_path):
    import onnx

    output = onnx.load(model).graph.output[0].name
    for name, new in (("model.calib.npz", "cal.npz"), ("model.eval.npz", "eva.npz")):
        (model.parent / name).rename(model.parent / new)
    (model.parent / "deploy.toml").write_text(TEXT.replace("{output}", output))
    code, _, error = deploy("--candidate", "float32", "-o", tmp_path / "out", model)
    assert code == 0, error
    return json.loads((tmp_path / "out/host/manifest.json").read_text())


def test_every_key_shows_in_the_manifest(manifest):
    assert [key for key, shows in EFFECTS.items() if not shows(manifest)] == []


def test_no_key_is_without_an_effect_that_a_test_holds():
    """A new key needs a line above."""
    missing = {key for key in keys() if not any(key == known or key.startswith(f"{known}.") for known in EFFECTS)}
    assert {key for key in missing if key not in ELSEWHERE} == set()


@pytest.mark.parametrize(("text", "word"), [('output = "nope"', "nope"), ('kind = "embedding"', "not applicable")])
def test_the_metric_decides_what_is_judged(deploy, model, tmp_path, text, word):
    (model.parent / "deploy.toml").write_text(f"[metric]\n{text}\n")
    _, out, error = deploy("-t", "host", "--candidate", "float32", "-o", tmp_path / "out", model)
    assert word in out + error
