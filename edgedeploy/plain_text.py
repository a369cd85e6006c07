"""Text from a model, a file or a tool, made harmless: it moves no cursor, turns no line round and is no markup.

Whatever reaches a terminal or report.md goes through here (`edgedeploy.terminal`, `edgedeploy.bundle.report`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Characters of one text that are shown; more is cut out of the middle.
MOST_CHARACTERS = 8_000

_MARKUP = re.compile(r"([\\`*_\[\]<>|&!#~$@]|(?<=www)\.|(?<=[a-zA-Z]):(?=//)|(?<=mailto):|(?<=xmpp):)")
_LEADING = re.compile(r"^([-+=]|\d+(?=[.)]))")


def printable(text: object, *, lines: bool = False, limit: int = MOST_CHARACTERS) -> str:
    r"""Show control characters, escape codes and marks of direction as ``\x1b`` or ``\u202e``.

    Args:
        lines: keep line breaks (and show tabs as spaces); else they are shown as ``\n`` too.
        limit: characters to keep.
    """
    shown = str(text)
    if len(shown) > limit:
        shown = f"{shown[: limit * 3 // 4]} … {shown[-limit // 4 :]}"
    if shown.isprintable():
        return shown
    if lines:
        return "\n".join(_escaped(line) for line in shown.expandtabs(4).split("\n"))
    return _escaped(shown)


def joined(lines: Iterable[object]) -> str:
    """Lines of our own making with strangers' names in them: each stays one line."""
    return "\n".join(printable(line) for line in lines)


def markdown(text: object) -> str:
    """Text for one cell or line of a Markdown document: harmless, on one line, and none of it is Markdown or HTML."""
    shown = _MARKUP.sub(r"\\\1", printable(" ".join(str(text).split())))
    return _LEADING.sub(r"\\\1" if not shown[:1].isdigit() else r"\1", shown)


def _escaped(text: str) -> str:
    return "".join(item if item.isprintable() else item.encode("unicode_escape").decode("ascii") for item in text)
