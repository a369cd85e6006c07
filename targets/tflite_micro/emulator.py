"""QEMU: a linked test firmware on an emulated Cortex-M. Numerics and memory are `simulator`; there is no time.

The firmware prints over semihosting, and `-icount shift=0` makes every instruction one step of the virtual clock, so
that counts are the same in every run. Instructions are not cycles: no latency comes from here.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from edgedeploy.errors import MissingToolError, ToolFailedError
from edgedeploy.targets.tflite_micro.report import FirmwareReport, read_report

EMULATOR = "qemu-system-arm"
INSTALL_EMULATOR = "apt-get install qemu-system-arm"
TIMEOUT_S = 600.0

_STACK = re.compile(r"^STACK (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class EmulatedRun:
    """What one run printed; ``stack_bytes`` is how deep the stack was at its deepest, ``wall_s`` what QEMU took."""

    report: FirmwareReport
    stack_bytes: int
    wall_s: float = field(compare=False)


def find_emulator() -> str:
    """Path of QEMU.

    Raises:
        MissingToolError: it is not installed.
    """
    found = shutil.which(EMULATOR)
    if found is None:
        raise MissingToolError(EMULATOR, install=INSTALL_EMULATOR)
    return found


def emulate(elf: Path, board: str, *, arena_bytes: int | None = None, timeout_s: float | None = None) -> EmulatedRun:
    """Run a firmware to its end.

    Args:
        elf: what `build_emulated` linked.
        board: QEMU's name of the machine.
        arena_bytes: use this much of the arena; ``None`` for all of it.
        timeout_s: `TIMEOUT_S` where ``None``.

    Raises:
        MissingToolError: QEMU is not installed.
        ToolFailedError: the firmware did not end in time, crashed, or printed no whole report.
    """
    argument = "edgedeploy" if arena_bytes is None else f"arena={arena_bytes}"
    command = [find_emulator(), "-M", board, "-nographic", "-monitor", "none", "-serial", "null", "-icount", "shift=0"]
    command += ["-semihosting-config", f"enable=on,target=native,arg={argument}", "-kernel", str(elf)]
    limit_s, start = timeout_s or TIMEOUT_S, time.monotonic()
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired:
        raise ToolFailedError(f"The firmware did not end on the emulated {board} in {limit_s:g} s.") from None
    # QEMU prints semihosting output on either stream, depending on its version.
    text = done.stdout + done.stderr
    try:
        report = read_report(text.splitlines())
    except ToolFailedError as error:
        raise _ended_early(board, done.returncode, text) from error
    stack = _STACK.search(text)
    return EmulatedRun(report, int(stack[1]) if stack else 0, time.monotonic() - start)


def _ended_early(board: str, returncode: int, text: str) -> ToolFailedError:
    how = f"exit status {returncode}" if returncode >= 0 else signal.Signals(-returncode).name
    said = " | ".join(line.strip() for line in text.splitlines()[-3:] if line.strip())
    return ToolFailedError(
        f"The firmware ended on the emulated {board} before its report was complete.",
        found=f"{how}; last it said: {said or 'nothing'}",
        remedy="A fault before the first line, or one while a fault is handled, ends like this.",
    )
