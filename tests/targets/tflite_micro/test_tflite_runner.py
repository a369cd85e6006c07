"""The interpreter in its subprocess: outputs, the smallest arena, and what happens when it dies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tflite_cases import all_cases
from tflite_graphs import quantized
from tflite_oracles import run_micro

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.errors import InputError, ToolFailedError
from edgedeploy.evidence import Evidence
from edgedeploy.exporters.tflite_micro.codes import real, stored
from edgedeploy.exporters.tflite_micro.contract import contract_of
from edgedeploy.exporters.tflite_micro.writer import write_tflite
from edgedeploy.interfaces import Artefact, RunJob
from edgedeploy.targets.tflite_micro.listing import operator_listing
from edgedeploy.targets.tflite_micro.runner import TfliteMicroRunner
from edgedeploy.targets.tflite_micro.simulator import simulate
from edgedeploy.tensors import PortSpec

#: Case → does the recorded total say the smallest arena? In models of one or two operators what is allocated and given
#: back while they are prepared is more than what they need afterwards.
ARENA_CASES = {
    "dense-gemm": False,
    "movement-flatten_dense": False,
    "activation-gelu": True,
    "transposed-groups": True,
    "activation-tanh": False,
    "movement-concat": False,
    "movement-pad_reflect": False,
    "movement-reshape": False,
    "pooling-mean_last": False,
    "pooling-reduce_max": False,
}


def artefact_of(name, folder):
    case = next(case for case in all_cases() if case.name == name)
    samples = case.samples()
    written = write_tflite(quantized(case.graph, samples))
    folder.mkdir(exist_ok=True)
    (folder / "model.tflite").write_bytes(written.content)
    artefact = Artefact("int8", folder, Path("model.tflite"), contract_of(written), "tflite")
    return artefact, written, samples


def job_for(samples, folder, device="", profile="stm32l4r5"):
    return RunJob(load_profile(profile), ArrayDataset({"x": samples[:, 0]}), folder, device)


def test_a_run_gives_what_the_interpreter_gives_in_process(tmp_path):
    artefact, written, samples = artefact_of("movement-flatten_dense", tmp_path / "a")
    result = TfliteMicroRunner().run(artefact, job_for(samples, tmp_path / "run"))
    assert result.evidence is Evidence.SIMULATOR
    port = artefact.contract.outputs[0]
    expected = real(port, np.stack([run[0] for run in run_micro(written, samples)]))
    assert np.array_equal(result.outputs["y_dequantized"], expected)
    assert result.outputs["y_dequantized"].shape == (4, 1, 3)
    assert [row["operator"] for row in result.details["operators"]] == [o.builtin for o in written.model.operators]


@pytest.mark.parametrize(("name", "recorded_is_enough"), ARENA_CASES.items())
def test_the_reported_arena_is_the_smallest_that_works(tmp_path, name, recorded_is_enough):
    artefact, _, samples = artefact_of(name, tmp_path / "a")
    inputs = [stored(artefact.contract.inputs[0], list(samples))]
    found = simulate(artefact.path, inputs, len(artefact.contract.outputs), tmp_path / "run")
    assert found.recorded_bytes <= found.arena_bytes + 15
    assert (found.arena_bytes - found.recorded_bytes <= 16) == recorded_is_enough
    assert abs(found.arena_bytes - found.peaks.largest) <= 16
    assert found.allocations["peak while running"] == found.recorded_bytes
    with pytest.raises(ToolFailedError):
        simulate(artefact.path, inputs, 1, tmp_path / "less", find_arena=False, arena_bytes=found.arena_bytes - 16)
    simulate(artefact.path, inputs, 1, tmp_path / "same", find_arena=False, arena_bytes=found.arena_bytes)


def test_ram_is_an_estimate_with_a_band_around_the_host_arena(tmp_path):
    artefact, _, samples = artefact_of("dense-gemm", tmp_path / "a")
    result = TfliteMicroRunner().run(artefact, job_for(samples, tmp_path / "run"))
    ram = next(figure for figure in result.figures if figure.name == "ram_kb")
    assert ram.evidence is Evidence.ESTIMATE
    assert ram.low < result.details["arena_bytes"] / 1024 < ram.high
    assert not any(figure.name == "latency_ms" for figure in result.figures)


def test_a_signal_is_a_failure_with_a_sentence(tmp_path, monkeypatch):
    artefact, _, samples = artefact_of("dense-gemm", tmp_path / "a")
    program = tmp_path / "dies.py"
    program.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr("edgedeploy.targets.tflite_micro.simulator.WORKER", "dies")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    inputs = [stored(artefact.contract.inputs[0], list(samples))]
    with pytest.raises(ToolFailedError, match="SIGSEGV") as raised:
        simulate(artefact.path, inputs, 1, tmp_path / "run", arena_bytes=200)
    assert "larger" in raised.value.remedy


@pytest.mark.parametrize("arena", [16, 200, 1000])
def test_a_small_arena_never_kills_the_caller(tmp_path, arena):
    artefact, _, samples = artefact_of("movement-flatten_dense", tmp_path / "a")
    inputs = [stored(artefact.contract.inputs[0], list(samples))]
    with pytest.raises(ToolFailedError):
        simulate(artefact.path, inputs, 1, tmp_path / "run", find_arena=False, arena_bytes=arena)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"not a flatbuffer at all")
    with pytest.raises(InputError, match=r"not a \.tflite"):
        operator_listing(path)


def test_an_unreachable_device_is_refused(tmp_path):
    artefact, _, samples = artefact_of("dense-gemm", tmp_path / "a")
    with pytest.raises(InputError, match="serial:PORT"):
        TfliteMicroRunner().run(artefact, job_for(samples, tmp_path / "run", "adb:1234"))


def test_codes_round_to_even_and_saturate():
    port = PortSpec("x", "x", (1, 2, 2, 3), "int8", "NHWC", (0, 2, 3, 1), 0.5, -3)
    sample = np.zeros((1, 3, 2, 2), np.float32)
    sample[0, 1, 0, 1] = 1000.0
    sample[0, 2, 1, 0] = 0.25
    codes = stored(port, [sample])
    assert codes.shape == (1, 1, 2, 2, 3)
    assert codes[0, 0, 0, 1, 1] == 127
    assert codes[0, 0, 1, 0, 2] == -3
    assert real(port, codes).shape == (1, 1, 3, 2, 2)
    with pytest.raises(InputError, match="another shape"):
        stored(port, [np.zeros((1, 3, 2, 3), np.float32)])
