"""Waiting for what happens instead of for a time: processes that stop where a test wants them, and their ends."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

#: Runs the command and, once a line that starts with argv[1] is on stderr, stays there until a signal ends it.
_HALTING = """
import io, signal, sys, threading

for number in (signal.SIGHUP, signal.SIGTERM):  # whatever the tests' own parent ignores (nohup)
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

class Halting(io.TextIOBase):
    def __init__(self, real, stage):
        self.real, self.stage, self.reached = real, stage, False
    def write(self, text):
        self.reached = self.reached or text.startswith(self.stage)
        stop = self.reached and text.endswith("\\n")
        self.reached = self.reached and not stop  # before a reader can send its signal
        self.real.write(text)
        self.real.flush()
        if stop:
            threading.Event().wait()
        return len(text)

sys.stderr = Halting(sys.stderr, sys.argv.pop(1))
from edgedeploy.cli import main
main(sys.argv[1:])
"""


def halting(stage: str, *arguments: object, **popen: object) -> subprocess.Popen[str]:
    """Start ``deploy`` so that it stops when it has said ``stage``; returns once it has.

    Without the stop a signal might come when a fast command on a busy machine is long past the stage, or has ended.
    """
    command = [sys.executable, "-P", "-c", _HALTING, stage, *map(str, arguments)]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **popen)
    said = []
    for line in child.stderr:
        said.append(line)
        if line.startswith(stage):
            return child
    raise AssertionError(f"it ended with {child.wait()} before {stage!r}:\n{''.join(said)}")


def ends(pid: int, patience_s: float = 120.0) -> bool:
    """Whether a process ends; an ended one that nobody has waited for counts as ended."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False
