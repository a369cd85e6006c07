"""The Mac runner through a real sshd on loopback, with a stand-in for xcrun."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xcrun_stand_in
from coreml_cases import export_context, figure, first, run
from loopback_sshd import loopback_sshd
from torch import nn

from edgedeploy.errors import MissingToolError, ToolFailedError
from edgedeploy.evidence import Evidence
from edgedeploy.targets.coreml.mac import XCRUN, _pixel_bytes

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 5)).eval()
    samples = {"input": RNG.normal(size=(3, 12)).astype(np.float32)}
    context = export_context(model, samples, tmp_path_factory.mktemp("mac"))
    return context, first(context), samples


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with loopback_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


def program(folder, body):
    path = folder / "xcrun"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def mac(server, tmp_path, monkeypatch):
    before = set(Path.home().glob("edgedeploy-coreml-*"))
    monkeypatch.setenv("EDGEDEPLOY_SSH_CONFIG", str(server.config))
    stand_in = program(tmp_path, f'exec {sys.executable} {xcrun_stand_in.__file__} "$@"')
    monkeypatch.setenv(XCRUN, stand_in)
    yield server.address
    assert set(Path.home().glob("edgedeploy-coreml-*")) == before, "the Mac is to be left as it was"


def test_outputs_times_and_placement_come_back(exported, mac):
    context, artefact, samples = exported
    here = run(artefact, context, samples)
    result = run(artefact, context, samples, device=mac)
    assert result.evidence is Evidence.DEVICE
    np.testing.assert_array_equal(result.outputs["output"], here.outputs["output"])
    latency = figure(result, "latency_ms")
    assert latency.evidence is Evidence.DEVICE
    assert latency.value == 3.0  # 25 times 2 ms and 25 times 4 ms
    assert latency.statistic("p99") == 4.0
    assert figure(result, "load_ms").value == 12.5
    assert result.details["units"]["CPU_AND_NE"]["placement"] == {"cpu": 1, "neural-engine": 1}
    assert result.details["largest_difference_from_cpu"]["ALL"] == 0.0


def test_no_xcode_on_the_mac(exported, mac, tmp_path, monkeypatch):
    monkeypatch.setenv(XCRUN, str(tmp_path / "nothing-here"))
    with pytest.raises(MissingToolError, match="xcrun coremlcompiler"):
        run(exported[1], exported[0], exported[2], device=mac)


def test_a_compiler_error_is_shown(exported, mac, tmp_path, monkeypatch):
    monkeypatch.setenv(XCRUN, program(tmp_path, "echo 'error: bad opset' >&2; exit 3"))
    with pytest.raises(ToolFailedError, match="code 3") as caught:
        run(exported[1], exported[0], exported[2], device=mac)
    assert "bad opset" in caught.value.found


def test_pixels_are_packed_blue_green_red_alpha():
    value = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    assert list(_pixel_bytes(value, "RGB")[:8]) == [8, 4, 0, 255, 9, 5, 1, 255]
    assert list(_pixel_bytes(value[:, :1], "GRAYSCALE")) == [0, 1, 2, 3]
