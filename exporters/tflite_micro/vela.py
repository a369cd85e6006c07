"""Arm's Vela compiler for Ethos-U, run as a program: what it places on the NPU, and what that costs.

Source: ethos-u-vela 5.2 (pypi.org/project/ethos-u-vela). Its summary is a performance model, not a measurement.
"""

from __future__ import annotations

import csv
import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edgedeploy.errors import InputError, MissingToolError, ToolFailedError
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.exporters.tflite_micro.estimates import STACK_KB

SYSTEM_CONFIG = "Ethos_U55_High_End_Embedded"
MEMORY_MODE = "Shared_Sram"
TIMEOUT_S = 900

#: Vela's cycle model has no published error; this is the band within which an estimate is usually believed.
LATENCY_BAND = (0.5, 2.0)

#: What the interpreter keeps in RAM beside the NPU's SRAM, KB: (likely, low, high).
RUNTIME_RAM_KB = (3.0, 1.0, 8.0)

_NPU = re.compile(r"NPU operators = (\d+)")
_CPU = re.compile(r"CPU operators = (\d+)")
_START = "import sys; from ethosu.vela.vela import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True)
class VelaResult:
    """A compiled model: memory in KB (1024 bytes), cycles and time of one inference by Vela's model."""

    path: Path
    npu_operators: int
    cpu_operators: int
    sram_kb: float
    flash_kb: float
    cycles: int
    latency_ms: float

    def figures(self) -> tuple[Figure, ...]:
        """Latency and RAM as estimates."""
        low, high = LATENCY_BAND
        how = f"Vela's model, {SYSTEM_CONFIG}: {self.cycles:,} cycles"
        extra = RUNTIME_RAM_KB
        return (
            Figure(
                "latency_ms", self.latency_ms, Evidence.ESTIMATE, how, self.latency_ms * low, self.latency_ms * high
            ),
            Figure(
                "ram_kb",
                self.sram_kb + extra[0] + STACK_KB,
                Evidence.ESTIMATE,
                f"Vela: {self.sram_kb:.1f} KB SRAM; + interpreter and stack",
                self.sram_kb + extra[1],
                self.sram_kb + extra[2] + STACK_KB,
            ),
        )


def compile_for_npu(model: Path, accelerator: str, folder: Path) -> VelaResult:
    """Compile ``model`` for an accelerator ("ethos-u55-128") into ``folder``.

    Raises:
        MissingToolError: ethos-u-vela is not installed.
        ToolFailedError: Vela failed or wrote no summary.
        InputError: Vela placed no operator on the NPU.
    """
    if importlib.util.find_spec("ethosu") is None:
        raise MissingToolError("ethos-u-vela (Arm's compiler for Ethos-U)", install="pip install 'edgedeploy[ethos]'")
    command = [sys.executable, "-c", _START, str(model), "--accelerator-config", accelerator]
    command += ["--config", "Arm/vela.ini", "--system-config", SYSTEM_CONFIG, "--memory-mode", MEMORY_MODE]
    command += ["--output-dir", str(folder), "--verbose-performance"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ToolFailedError(f"Vela did not finish in {TIMEOUT_S} s.", found=str(model)) from None
    compiled = folder / f"{model.stem}_vela.tflite"
    if done.returncode != 0 or not compiled.is_file():
        raise ToolFailedError("Vela could not compile the model.", found=_tail(done.stdout + done.stderr))
    npu, cpu = _NPU.search(done.stdout), _CPU.search(done.stdout)
    if npu is None or cpu is None:
        raise ToolFailedError("Vela did not say what it placed on the NPU.", found=_tail(done.stdout))
    if int(npu[1]) == 0:
        raise InputError(
            f"Vela placed no operator of this model on the {accelerator}.",
            found=f"NPU operators = 0, CPU operators = {cpu[1]}",
            remedy="Deploy to the same core without the accelerator, or change the operators.",
        )
    row = _summary(folder, model.stem)
    return VelaResult(
        compiled,
        int(npu[1]),
        int(cpu[1]),
        float(row["sram_memory_used"]),
        float(row["off_chip_flash_memory_used"]) + float(row["on_chip_flash_memory_used"]),
        round(float(row["cycles_total"])),
        float(row["inference_time"]) * 1000,
    )


def _summary(folder: Path, stem: str) -> dict[str, str]:
    path = folder / f"{stem}_summary_{SYSTEM_CONFIG}.csv"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return next(csv.DictReader(stream))
    except (OSError, StopIteration):
        raise ToolFailedError("Vela wrote no summary.", found=str(path)) from None


def _tail(text: str) -> str:
    return " | ".join(line.strip() for line in text.strip().splitlines()[-6:])
