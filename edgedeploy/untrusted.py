"""Files that a stranger may have written: regular, of bounded size and depth, and inside the folder they belong to."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

from edgedeploy.errors import InputError

#: Bytes of a configuration, a profile, a lock or a list of labels; the labels of ImageNet-21k take 0.5 MB.
MAX_TEXT_BYTES = 4 << 20

#: Tables within tables; no file of ours goes deeper than ten.
MAX_DEPTH = 64

#: Dots in one line of TOML: the time to read a dotted key grows with the square of its parts.
MAX_DOTS = 4000

#: Files and folders below one folder of data; ImageNet's training set has 1.3 million.
MAX_ENTRIES = 2_000_000


def check_regular(path: Path, what: str = "") -> os.stat_result:
    """Stat ``path`` and refuse what is no regular file: a FIFO waits for ever, a device never ends.

    Raises:
        InputError: missing, no regular file, or a path that no file system takes.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise InputError(f"{what or shown(path)} can't be read.", found=_why(error, path)) from None
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{what or shown(path)} is no regular file.", found=_kind(found.st_mode))
    return found


def read_bytes(path: Path, what: str = "", limit: int = MAX_TEXT_BYTES) -> bytes:
    """Read a whole regular file of at most ``limit`` bytes, without ever waiting for one that is no file.

    Raises:
        InputError: missing, unreadable, no regular file, or larger.
    """
    what = what or shown(path)
    check_regular(path, what)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise InputError(f"{what} is no regular file.", found=_kind(mode))
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"{what} can't be read.", found=_why(error, path)) from None
    if len(content) > limit:
        raise InputError(f"{what} is too large.", found=f"more than {limit / 1e6:.3g} MB")
    return content


def read_text(path: Path, what: str = "", limit: int = MAX_TEXT_BYTES) -> str:
    """Read a regular file of UTF-8 text; `InputError` where it is none, holds NUL, or exceeds ``limit`` bytes."""
    content = read_bytes(path, what, limit)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{what or shown(path)} is not UTF-8 text.", found=str(error)[:200]) from None
    if text.startswith("\ufeff"):
        raise InputError(
            f"{what or shown(path)} starts with a byte order mark.", remedy="Save it as UTF-8 without one."
        )
    if "\0" in text:
        raise InputError(f"{what or shown(path)} is not text.", found=f"a NUL character at {text.index(chr(0))}")
    return text


def read_toml(path: Path, what: str = "") -> dict[str, Any]:
    """Read a TOML file; `InputError` where it is none, too large, or nested deeper than `MAX_DEPTH`."""
    text = read_text(path, what)
    if max((line.count(".") for line in text.splitlines()), default=0) > MAX_DOTS:
        raise InputError(
            f"{what or shown(path)} can't be read as TOML.", found=f"a line with more than {MAX_DOTS} dots"
        )
    found: dict[str, Any] = _parsed(tomllib.loads, text, what or shown(path), "TOML")
    return found


def read_json(path: Path, what: str = "", limit: int = MAX_TEXT_BYTES) -> Any:
    """Read a JSON file; `InputError` where it is none, too large, or nested deeper than `MAX_DEPTH`."""
    return _parsed(json.loads, read_text(path, what, limit), what or shown(path), "JSON")


def inside(folder: Path, name: str, what: str) -> Path:
    """The file or folder ``name`` below ``folder``, links resolved.

    Args:
        what: who names it, for messages (``deploy.toml: model.labels``).

    Raises:
        InputError: an absolute path, one that leaves the folder (by ``..`` or by a link), or one that no file
            system takes.
    """
    if Path(name).is_absolute() or PureWindowsPath(name).drive or name.startswith(("\\", "~")):
        raise InputError(f"{what} must lie in the folder of the file that names it.", found=f"the path {name!r}")
    try:
        root, path = folder.resolve(), (folder / name).resolve()
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} is no path.", found=_why(error, Path(name))) from None
    if not path.is_relative_to(root):
        raise InputError(
            f"{what} must lie in the folder of the file that names it.", found=f"{name!r} leads to {shown(path)}"
        )
    return path


def links_out(folder: Path, root: Path) -> Iterator[Path]:
    """Yield each entry below ``folder`` that is a link to something outside ``root`` (or to nothing).

    Raises:
        InputError: more entries than `MAX_ENTRIES`.
    """
    root = root.resolve()
    for entry in entries(folder):
        if entry.is_symlink():
            path = Path(entry.path)
            try:
                inside_root = path.resolve(strict=True).is_relative_to(root)
            except (OSError, RuntimeError):
                inside_root = False
            if not inside_root:
                yield path


def entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Walk a folder without following links; `InputError` beyond `MAX_ENTRIES`, or where it can't be read."""
    count, waiting = 0, [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    count += 1
                    if count > MAX_ENTRIES:
                        raise InputError(f"{shown(folder)} holds too many files.", found=f"more than {MAX_ENTRIES:,}")
                    yield entry
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except (OSError, ValueError) as error:
            raise InputError(f"{shown(folder)} can't be read.", found=_why(error, folder)) from None


def shown(path: Path | str) -> str:
    """A path for a message: cut in the middle where it is overlong."""
    text = str(path)
    return text if len(text) <= 300 else f"{text[:140]}…{text[-140:]}"


def _parsed(parse: Callable[[str], Any], text: str, what: str, form: str) -> Any:
    try:
        found = parse(text)
    except (ValueError, RecursionError, MemoryError) as error:
        why = "tables nested too deep" if isinstance(error, RecursionError) else str(error)[:200]
        raise InputError(f"{what} can't be read as {form}.", found=why or type(error).__name__) from None
    level: list[Any] = [found]
    for _ in range(MAX_DEPTH):
        level = [item for value in level for item in _members(value)]
        if not level:
            return found
    raise InputError(f"{what} can't be read as {form}.", found=f"tables nested deeper than {MAX_DEPTH}")


def _members(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def _why(error: Exception, path: Path) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{reason}: {shown(path)}"
