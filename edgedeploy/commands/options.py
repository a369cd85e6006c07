"""Reading KEY=VALUE options and lists of names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgedeploy.errors import InputError
from edgedeploy.untrusted import shown


def pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    """Split ``KEY=VALUE`` texts.

    Raises:
        InputError: one is not of that form, or a key is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise InputError(f"{option} {text!r} is not KEY=VALUE.")
        if key.strip() in found:
            raise InputError(f"{option} gives {key.strip()!r} twice.")
        found[key.strip()] = value.strip()
    return found


def picture_file(path: Path | None) -> None:
    """Refuse, before any work, a picture that could not be drawn to ``path``."""
    if path is not None and (path.suffix not in (".png", ".svg", ".pdf") or not path.parent.is_dir()):
        raise InputError(f"--plot {shown(path)}: give a .png, .svg or .pdf file in a folder that exists.")


def names_in(texts: Iterable[str]) -> tuple[str, ...]:
    """Split ``NAME[,NAME…]`` texts."""
    return tuple(name.strip() for text in texts for name in text.split(",") if name.strip())
