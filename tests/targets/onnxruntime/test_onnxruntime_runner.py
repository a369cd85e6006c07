"""The runner on real artefacts: outputs, figures, their evidence, and what happens when the worker does not live."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from loopback_sshd import loopback_sshd
from onnxruntime_cases import agreement, digits, execute

from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.device_profiles.machine import Machine, this_machine
from edgedeploy.errors import InputError, MissingToolError, ToolFailedError
from edgedeploy.evidence import Evidence
from edgedeploy.interfaces import RunJob
from edgedeploy.targets.onnxruntime import job as job_module
from edgedeploy.targets.onnxruntime import runner as runner_module
from edgedeploy.targets.onnxruntime import worker
from edgedeploy.targets.onnxruntime.placement import placement
from edgedeploy.targets.onnxruntime.runner import OnnxRuntimeRunner


@pytest.fixture(scope="module", autouse=True)
def brief():
    """Shorter measurements: what is tested is that they are taken, not how steady they are."""
    patch = pytest.MonkeyPatch()
    patch.setattr(job_module, "MEASURE_SECONDS", (0.2, 0.3))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def cnn():
    return digits()


@pytest.fixture(scope="module")
def artefact(cnn, tmp_path_factory):
    """Made for the machine at hand, whatever it is."""
    return cnn.artefact(tmp_path_factory.mktemp("static"), "static-qdq", "host")


def _job(cnn, folder, profile="host", **changes):
    return RunJob(load_profile(profile), cnn.samples, folder, **changes)


@pytest.fixture(scope="module")
def result(cnn, artefact, tmp_path_factory):
    return OnnxRuntimeRunner().run(artefact, _job(cnn, tmp_path_factory.mktemp("run")))


def test_the_outputs_are_those_of_the_artefact_for_every_sample(cnn, artefact, result):
    output = result.outputs[cnn.graph.outputs[0].name]
    assert isinstance(output, np.memmap)
    assert output.shape == cnn.reference.shape
    assert agreement(execute(artefact, cnn.samples), output) >= 0.99
    assert agreement(cnn.reference, output) >= 0.98


def test_every_figure_is_measured_and_says_how(result):
    figures = {figure.name: figure for figure in result.figures}
    assert figures.keys() == {"latency_ms", "throughput_per_s", "load_ms", "memory_mb"}
    assert all(figure.evidence is Evidence.DEVICE and figure.how for figure in figures.values())
    latency = dict(figures["latency_ms"].statistics)
    assert 0 < latency["min"] <= latency["p50"] <= latency["p90"] <= latency["p99"]
    assert figures["latency_ms"].value == latency["p50"]
    assert figures["throughput_per_s"].value == pytest.approx(1e3 / latency["mean"])
    assert 20 < figures["memory_mb"].value < 1000


def test_the_placement_names_what_runs_in_integers(result):
    placed = result.details["placement"]
    assert placed["multiplying_nodes"]["integer"] == 5
    assert placed["multiplying_nodes"]["float"] == 0
    assert sum(placed["time_share"].values()) == pytest.approx(1, abs=0.01)


def test_nodes_left_in_float_are_called_out():
    nodes = [
        {"name": "a", "op": "QLinearConv", "us": 30.0},
        {"name": "b", "op": "Conv", "us": 60.0},
        {"name": "c", "op": "Relu", "us": 10.0},
    ]
    placed = placement(nodes)
    assert placed.warning == "1 of 2 multiplying nodes run in float (60% of the kernel time): 1 Conv"
    assert placement(nodes[1:]).warning == ""  # a float model is float on purpose


def test_a_busy_machine_is_called_out(cnn, artefact, tmp_path):
    """Another process on the same CPU halves what the worker gets; the times are not trusted in silence."""
    cpu = min(os.sched_getaffinity(0))
    burn = f"import os\nos.sched_setaffinity(0, [{cpu}])\nwhile True: pass"
    rivals = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(2)]
    try:
        result = OnnxRuntimeRunner().run(artefact, _job(cnn, tmp_path))
    finally:
        for rival in rivals:
            rival.kill()
            rival.wait()
    assert any("the machine was busy" in note for note in result.notes)


def test_a_foreign_isa_gives_numerics_and_no_times(cnn, tmp_path):
    foreign = "raspberrypi4" if this_machine().arch == "x86_64" else "x86-avx2"
    made = cnn.artefact(tmp_path / "export", "static-qdq", foreign)
    result = OnnxRuntimeRunner().run(made, _job(cnn, tmp_path / "run", foreign))
    assert result.evidence is Evidence.EXECUTOR
    assert result.figures == ()
    assert any("its times are not shown" in note for note in result.notes)
    # Signed activations stay signed, as they do in ONNX Runtime's builds for ARM.
    assert result.details["placement"]["multiplying_nodes"] == {"integer": 5, "weight_only": 0, "float": 0}
    assert agreement(cnn.reference, result.outputs[cnn.graph.outputs[0].name]) >= 0.98


def test_the_same_isa_is_a_simulator_and_the_named_machine_the_device(cnn, artefact, tmp_path, monkeypatch):
    machine = Machine("x86_64", load_profile("x86-avx512vnni").hardware.isa, "Xeon", 2)
    machine = replace(machine, features=frozenset(machine.features))
    monkeypatch.setattr(runner_module, "this_machine", lambda: machine)
    monkeypatch.setattr(runner_module.Machine, "from_facts", lambda facts: machine)
    for device, evidence in (("", Evidence.SIMULATOR), ("local", Evidence.DEVICE)):
        result = OnnxRuntimeRunner().run(
            artefact, _job(cnn, tmp_path / (device or "x"), "x86-avx512vnni", device=device)
        )
        assert result.evidence is evidence
        assert {figure.evidence for figure in result.figures} == {evidence}


def test_without_measuring_only_outputs_come_back(cnn, artefact, tmp_path):
    result = OnnxRuntimeRunner().run(artefact, _job(cnn, tmp_path, measure=False))
    assert result.figures == () and len(result.outputs) == 1


def test_samples_are_read_once_for_all_candidates(cnn, artefact, tmp_path):
    runner = OnnxRuntimeRunner()
    job = _job(cnn, tmp_path, measure=False)
    reads = []
    counted = replace(job, progress=_Counting(reads))
    first = runner.run(artefact, counted)
    second = runner.run(replace(artefact, candidate="again"), counted)
    assert reads == ["Writing samples"]
    name = cnn.graph.outputs[0].name
    np.testing.assert_array_equal(first.outputs[name], second.outputs[name])


class _Counting:
    def __init__(self, seen):
        self.seen = seen

    def track(self, items, *, what, total=None):
        self.seen.append(what)
        yield from items

    def note(self, text):
        pass


def test_a_file_that_is_no_model_is_refused_with_a_sentence(cnn, artefact, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    broken = replace(artefact, folder=tmp_path, main=Path("broken.onnx"))
    with pytest.raises(ToolFailedError, match="ONNX Runtime on this machine refused the artefact") as caught:
        OnnxRuntimeRunner().run(broken, _job(cnn, tmp_path))
    assert "broken" in caught.value.found or "model.onnx" in caught.value.found


@pytest.mark.parametrize(("script", "sentence"), [("kill -SEGV $$", "was ended by SIGSEGV"), ("exit 9", "exit code 9")])
def test_a_worker_that_dies_is_a_sentence(cnn, artefact, tmp_path, monkeypatch, script, sentence):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(runner_module.sys, "executable", str(python))
    with pytest.raises(ToolFailedError, match=sentence):
        OnnxRuntimeRunner().run(artefact, _job(cnn, tmp_path))


def test_the_worker_imports_nothing_of_the_package():
    lines = Path(worker.__file__).read_text().splitlines()
    imports = {line.split()[1].split(".")[0] for line in lines if line.strip().startswith(("import ", "from "))}
    assert imports - {"numpy", "onnxruntime"} <= sys.stdlib_module_names


def test_adb_is_no_way_to_an_onnx_runtime_target(cnn, artefact, tmp_path):
    with pytest.raises(InputError, match="locally or over ssh"):
        OnnxRuntimeRunner().run(artefact, _job(cnn, tmp_path, device="adb:123"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with loopback_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def over_ssh(server, monkeypatch):
    monkeypatch.setenv("EDGEDEPLOY_SSH_CONFIG", str(server.config))
    monkeypatch.setenv("EDGEDEPLOY_REMOTE_PYTHON", sys.executable)
    return server.address


def test_the_same_measurement_runs_over_ssh(cnn, artefact, result, tmp_path, over_ssh):
    remote = OnnxRuntimeRunner().run(artefact, _job(cnn, tmp_path, device=over_ssh))
    assert remote.evidence is Evidence.DEVICE
    assert {figure.name for figure in remote.figures} == {figure.name for figure in result.figures}
    assert {figure.evidence for figure in remote.figures} == {Evidence.DEVICE}
    name = cnn.graph.outputs[0].name
    np.testing.assert_array_equal(remote.outputs[name], result.outputs[name])
    assert not list(Path("/tmp").glob("edgedeploy-*/run-static-qdq"))


def test_a_machine_behind_ssh_that_is_not_the_target(cnn, tmp_path, over_ssh):
    foreign = "raspberrypi4" if this_machine().arch == "x86_64" else "x86-avx2"
    made = cnn.artefact(tmp_path / "export", "float32", foreign)
    with pytest.raises(InputError, match=f"is not a {foreign}"):
        OnnxRuntimeRunner().run(made, _job(cnn, tmp_path / "run", foreign, device=over_ssh))


def test_a_device_without_onnxruntime_says_how_to_install_it(cnn, artefact, tmp_path, over_ssh, monkeypatch):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # -S: no site-packages
    bare.chmod(0o755)
    monkeypatch.setenv("EDGEDEPLOY_REMOTE_PYTHON", str(bare))
    with pytest.raises(MissingToolError, match="onnxruntime on ssh") as caught:
        OnnxRuntimeRunner().run(artefact, _job(cnn, tmp_path, device=over_ssh))
    assert "pip install onnxruntime" in caught.value.remedy
