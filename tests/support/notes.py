"""A `Progress` that keeps what it is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


class Notes:
    """Notes in ``texts``; tracked work passes through."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def track(self, items: Iterable[Any], *, what: str, total: int | None = None) -> Iterator[Any]:
        return iter(items)

    def note(self, text: str) -> None:
        self.texts.append(text)
