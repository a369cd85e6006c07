"""A board on a pseudo-terminal: its report becomes device figures, or a sentence that says what is wrong."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
import tty
from pathlib import Path

import numpy as np
import pytest
from tflite_cases import all_cases
from tflite_graphs import quantized
from tflite_oracles import run_micro

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.errors import ToolFailedError
from edgedeploy.evidence import Evidence
from edgedeploy.exporters.tflite_micro.codes import real, stored
from edgedeploy.exporters.tflite_micro.contract import contract_of
from edgedeploy.exporters.tflite_micro.firmware.bundle import vector_crc
from edgedeploy.exporters.tflite_micro.writer import write_tflite
from edgedeploy.interfaces import Artefact, RunJob
from edgedeploy.targets.tflite_micro.report import read_report
from edgedeploy.targets.tflite_micro.runner import TfliteMicroRunner


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An artefact, its samples, and what its firmware prints, computed by the real interpreter."""
    case = next(case for case in all_cases() if case.name == "dense-gemm")
    samples = case.samples()
    written = write_tflite(quantized(case.graph, samples))
    folder = tmp_path_factory.mktemp("artefact")
    (folder / "model.tflite").write_bytes(written.content)
    artefact = Artefact("int8", folder, Path("model.tflite"), contract_of(written), "tflite")
    outputs = np.stack([run[0] for run in run_micro(written, samples[:3])])
    lines = [f"EDGEDEPLOY 1 {hashlib.sha256(written.content).hexdigest()[:16]}", "ARENA 2048 4096"]
    for vector in range(3):
        codes = stored(artefact.contract.inputs[0], [samples[vector]])[0]
        lines.append(f"OUTPUT {vector} 0 {vector_crc([codes]):08x} {outputs[vector].tobytes().hex()}")
        lines.append(f"GOLDEN {vector} PASS 0 {1000 + vector}")
    lines.append("RESULT PASS")
    return artefact, samples, outputs, lines


@contextlib.contextmanager
def board(lines):
    """A pseudo-terminal that prints ``lines`` when it receives a byte."""
    controller, device = os.openpty()
    tty.setraw(controller)
    tty.setraw(device)

    def answer():
        os.read(controller, 1)
        os.write(controller, ("boot 1.2.3\r\n" + "".join(f"{line}\r\n" for line in lines)).encode())

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield os.ttyname(device)
    finally:
        thread.join(5)
        os.close(controller)
        os.close(device)


def run(built, lines, tmp_path):
    artefact, samples, _, _ = built
    with board(lines) as port:
        job = RunJob(load_profile("stm32l4r5"), ArrayDataset({"x": samples[:, 0]}), tmp_path, f"serial:{port}")
        return TfliteMicroRunner().run(artefact, job)


def test_a_report_becomes_device_figures(built, tmp_path):
    artefact, _, outputs, lines = built
    result = run(built, lines, tmp_path)
    assert result.evidence is Evidence.DEVICE
    figures = {figure.name: figure for figure in result.figures}
    assert figures["ram_kb"].value == pytest.approx(2048 / 1024 + 4)
    assert figures["ram_kb"].evidence is Evidence.DEVICE
    assert figures["latency_ms"].value == pytest.approx(1.001)
    name = artefact.contract.outputs[0].source_name
    assert np.array_equal(result.outputs[name], real(artefact.contract.outputs[0], outputs))


def test_without_a_clock_there_is_no_latency(built, tmp_path):
    lines = [line.rsplit(" ", 1)[0] + " 0" if line.startswith("GOLDEN") else line for line in built[3]]
    assert {figure.name for figure in run(built, lines, tmp_path).figures} == {"ram_kb"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: ["EDGEDEPLOY 1 0123456789abcdef", *lines[1:]], "another model"),
        (lambda lines: ["EDGEDEPLOY 2 x", *lines[1:]], "another format"),
        (lambda lines: [lines[0], "ERROR the arena of 16 bytes is too small", "RESULT FAIL"], "failed"),
        (lambda lines: [lines[0], "ARENA 1 2", "RESULT PASS"], "no golden vectors"),
        (lambda lines: [*lines[:2], "OUTPUT 0 0 zz 00", *lines[2:]], "cannot be read"),
        (lambda lines: [re.sub(r"^(OUTPUT \d+ \d+) \w+", r"\1 00000000", line) for line in lines], "not these samples"),
        (lambda lines: [line[:-2] if line.startswith("OUTPUT 1") else line for line in lines], "wrong length"),
    ],
)  # fmt: skip
def test_a_wrong_report_is_refused(built, tmp_path, change, words):
    with pytest.raises(ToolFailedError, match=words):
        run(built, change(list(built[3])), tmp_path)


def test_a_board_that_says_nothing_is_a_failure(built, tmp_path, monkeypatch):
    monkeypatch.setattr("edgedeploy.targets.tflite_micro.board.TIMEOUT_S", 0.3)
    with pytest.raises(ToolFailedError, match="sent no line"):
        run(built, built[3][:2], tmp_path)


def test_a_report_that_ends_early_is_a_failure():
    with pytest.raises(ToolFailedError, match="before its RESULT"):
        read_report(["EDGEDEPLOY 1 ab", "ARENA 1 2"])
