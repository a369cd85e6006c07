"""What a worker says to the process that watches it: one JSON document a line, parsed by a closed set of kinds."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from edgedeploy.sandbox.limits import Limits, allow_cpu
from edgedeploy.sandbox.watch import TOOL_STEPS

T = TypeVar("T")

#: No result, error or note of a worker comes near this; more is taken for an attack.
MAX_LINE_BYTES = 64 * 2**20
#: Seconds between two reports of a bar that moves.
_BAR_SECONDS = 0.1


class Channel:
    """The worker's end: progress, steps and events, written at once and whole.

    Attributes:
        confinement: which limits this worker is under, for the record.
        scratch: an empty folder of the worker's own.
    """

    def __init__(self, descriptor: int, limits: Limits, scratch: Path) -> None:
        self.scratch = scratch
        self._descriptor, self._limits = descriptor, limits
        self.confinement: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._allowed_s = limits.step_cpu_s
        self._bars = 0

    def send(self, **message: Any) -> None:
        """Write one message; ``allow_nan`` stays off, so that every line is JSON."""
        line = json.dumps(message, allow_nan=False).encode() + b"\n"
        with self._lock:
            while line:
                line = line[os.write(self._descriptor, line) :]

    def event(self, value: Any) -> None:
        """Hand over a value (JSON) before the end."""
        self.send(event=value)

    def step(self, name: str) -> None:
        """Begin a step: its CPU time starts now."""
        self._allowed_s = self._limits.cpu_s(tool=name in TOOL_STEPS)
        allow_cpu(self._allowed_s)
        self.send(step=name)

    def note(self, text: str) -> None:
        """See `edgedeploy.progress.Progress.note`."""
        allow_cpu(self._allowed_s)
        self.send(note=text)

    def track(self, items: Iterable[T], *, what: str, total: int | None = None) -> Iterator[T]:
        """See `edgedeploy.progress.Progress.track`; each item gets the step's CPU time anew."""
        self._bars += 1
        bar, done, told = self._bars, 0, time.monotonic()
        self.send(bar=bar, what=what, total=total)
        try:
            for item in items:
                yield item
                done += 1
                allow_cpu(self._allowed_s)
                if time.monotonic() - told > _BAR_SECONDS:
                    told = time.monotonic()
                    self.send(bar=bar, done=done)
        finally:
            self.send(bar=bar, done=done, end=True)
