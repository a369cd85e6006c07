"""Runs ONNX Runtime workers on an emulated x86 CPU without AVX-512 and VNNI, as thousands of real ones are."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from programs import require

from edgedeploy.targets.onnxruntime import worker

#: Haswell: AVX2 and FMA, nothing newer. What user-mode emulation lacks is left out, so that it warns of nothing.
CPU = "Haswell,-hle,-invpcid,-pcid,-rtm,-tsc-deadline,-x2apic"
_MANY = "import pathlib, sys, worker\nfor job in sys.argv[1:]:\n    assert worker.main(pathlib.Path(job)) == 0, job\n"


def work_without_vnni(folders: Sequence[Path]) -> None:
    """Run prepared worker folders, all in one process; skips the test where there is no emulator."""
    if platform.machine() != "x86_64":
        pytest.skip("needs an x86-64 machine")
    [emulator] = require("qemu-x86_64")
    jobs = [str(folder / "job.json") for folder in folders]
    done = subprocess.run(
        [emulator, "-cpu", CPU, sys.executable, "-c", _MANY, *jobs],
        cwd=Path(worker.__file__).parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
