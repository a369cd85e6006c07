"""How long work reports itself; the face decides what becomes of it (bars, lines or nothing)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """What long work may say while it runs."""

    def track(self, items: Iterable[T], *, what: str, total: int | None = None) -> Iterator[T]:
        """Yield ``items`` and show how many of ``total`` are done."""
        ...

    def note(self, text: str) -> None:
        """Say one line that a user should see now."""
        ...


class NoProgress:
    """Says nothing: the default in the Python API and in tests."""

    def track(self, items: Iterable[T], *, what: str, total: int | None = None) -> Iterator[T]:
        """Yield ``items`` unchanged."""
        yield from items

    def note(self, text: str) -> None:
        """Drop ``text``."""
