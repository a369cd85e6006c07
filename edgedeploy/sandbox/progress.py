"""A worker's bars and notes, drawn by the parent's own `Progress`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgedeploy.progress import Progress

#: A bar moves at most this far in one message, whatever a worker says.
_LONGEST_MOVE = 100_000


class Bars:
    """Draws what a worker reports; a bar of the worker is a generator that is moved on here."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._open: dict[int, tuple[Iterator[int], int]] = {}

    def take(self, message: dict[str, Any]) -> None:
        """Act on a note, or on a bar that begins, moves or ends."""
        match message:
            case {"note": str(text)}:
                self._progress.note(text)
            case {"bar": int(bar), "what": str(what), "total": int() | None as total}:
                steps = self._progress.track(_forever(), what=what, total=total)
                next(steps, None)
                self._open[bar] = (steps, 0)
            case {"bar": int(bar), "done": int(done)} if bar in self._open:
                steps, before = self._open[bar]
                for _ in range(min(done - before, _LONGEST_MOVE)):
                    next(steps, None)
                self._open[bar] = (steps, done)
                if message.get("end"):
                    self._end(bar)

    def close(self) -> None:
        """End every bar that the worker left open."""
        for bar in list(self._open):
            self._end(bar)

    def _end(self, bar: int) -> None:
        steps, _ = self._open.pop(bar)
        close = getattr(steps, "close", None)
        if close is not None:
            close()


def _forever() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1
