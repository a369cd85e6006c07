"""How long each stage of a run took and how much memory the process used at its peak."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterator

from edgedeploy.sandbox.watch import arm


class Stages:
    """Wall-clock seconds by stage name, summed over targets."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to ``name``; a worker's limits count the stage as a step."""
        arm(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def peak_memory_mb() -> float:
    """Peak resident memory of this process and of its largest finished child, in MB (1e6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    peaks = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(peaks) * unit / 1e6
