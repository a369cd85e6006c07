"""Signs of life: each step of the work gets its CPU time anew, and its name is known when it does not come back."""

from __future__ import annotations

from collections.abc import Callable

#: Steps that run vendors' tools or a device: they get more time, and their failure is the tool's.
TOOL_STEPS = frozenset({"export", "run", "bundle", "measure"})


#: Those who are told the name of each step: one inside a worker, nobody elsewhere.
_listeners: list[Callable[[str], None]] = []


def arm(step: str) -> None:
    """Begin a step ("load", "capture", "run"): inside a worker its time starts now, elsewhere nothing happens."""
    for listener in _listeners:
        listener(step)


def listen(listener: Callable[[str], None]) -> None:
    """Have `arm` call ``listener``, for as long as this process lives."""
    _listeners[:] = [listener]
