"""Firmware on an emulated Cortex-M: QEMU with semihosting; numerics and arena are `simulator`, time is not time.

The firmware is an ELF built from the bundle's sources with a tflite-micro tree for one of QEMU's boards, printing
over semihosting (newlib's rdimon). Instructions are not cycles: no latency comes from here.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from edgedeploy.errors import InputError, MissingToolError, ToolFailedError
from edgedeploy.evidence import Evidence
from edgedeploy.interfaces import Artefact, RunJob, RunResult
from edgedeploy.targets.tflite_micro.board import result_of
from edgedeploy.targets.tflite_micro.report import read_report

EMULATOR = "qemu-system-arm"
TIMEOUT_S = 600


def run_emulated(elf: Path, artefact: Artefact, job: RunJob) -> RunResult:
    """Run a built firmware on the profile's emulated board and read its report.

    Raises:
        MissingToolError: QEMU is not installed.
        InputError: the profile names no emulated board, or the ELF is not there.
        ToolFailedError: the firmware did not end or its report is not of this artefact.
    """
    board = job.profile.hardware.emulated_board
    if not board:
        raise InputError(f"{job.profile.name} has no emulated board.", remedy="Use a board: --device serial:PORT.")
    if not elf.is_file():
        raise InputError(f"There is no firmware {elf}.", remedy="Build the bundle's firmware folder first.")
    emulator = shutil.which(EMULATOR)
    if emulator is None:
        raise MissingToolError(EMULATOR, install="apt-get install qemu-system-arm")
    command = [emulator, "-M", board, "-nographic", "-monitor", "none", "-serial", "null"]
    command += ["-semihosting-config", "enable=on,target=native", "-icount", "shift=0", "-kernel", str(elf)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ToolFailedError(f"The firmware did not end on the emulated {board} in {TIMEOUT_S} s.") from None
    # QEMU prints semihosting output on either stream, depending on its version.
    report = read_report((done.stdout + done.stderr).splitlines())
    return result_of(report, artefact, job, Evidence.SIMULATOR, f"emulated {board}")
