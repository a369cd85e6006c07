"""The files of a bundle: their names, their hashes, and what must not be among them."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

from edgedeploy.errors import ToolFailedError
from edgedeploy.plain_text import printable
from edgedeploy.untrusted import entries, shown

ARTEFACT, GOLDEN = "artefact", "golden"
MANIFEST, MEASUREMENTS, REPORT = "manifest.json", "measurements.json", "report.md"

#: Files that are not part of the reproducible digest; `edgedeploy.bundle.journal` covers them.
UNHASHED = (MANIFEST, MEASUREMENTS, REPORT)

#: How a file is called for the instant in which it replaces another.
ASIDE = ".edgedeploy-aside-"

#: Nobody else may write, and nothing runs as somebody else; folders may hand on their group.
_FORBIDDEN_FILE_MODE, _FORBIDDEN_FOLDER_MODE = 0o7002, 0o4002
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def sha256_file(path: Path) -> str:
    """Hash one file without reading it whole; a link is not followed."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_tree(folder: Path, exclude: Collection[str] = ()) -> dict[str, str]:
    """Hash every file below ``folder`` by its POSIX path, sorted; ``exclude`` names paths left out.

    Raises:
        ToolFailedError: something there is neither file nor folder.
    """
    names = {}
    for entry in entries(folder):
        if entry.is_file(follow_symlinks=False):
            names[Path(entry.path).relative_to(folder).as_posix()] = Path(entry.path)
        elif not entry.is_dir(follow_symlinks=False):
            raise ToolFailedError("A bundle takes files and folders only.", found=shown(entry.path))
    return {name: sha256_file(names[name]) for name in sorted(names) if name not in exclude}


def settle_modes(folder: Path) -> list[str]:
    """Take from every file and folder what no bundle may allow; return the names of what may be executed, sorted."""
    executables = []
    for entry in entries(folder):
        status = entry.stat(follow_symlinks=False)
        executable = bool(status.st_mode & 0o100)
        if executable and not stat.S_ISDIR(status.st_mode):
            executables.append(Path(entry.path).relative_to(folder).as_posix())
        if not stat.S_ISLNK(status.st_mode):
            Path(entry.path).chmod(status.st_mode & (0o755 if executable else 0o644))
    return sorted(executables)


def bad_names(files: Mapping[str, str], executables: Iterable[str]) -> list[str]:
    """Say which of the names in a manifest can't be those of a bundle's files."""
    problems = []
    for name, digest in files.items():
        path = PurePosixPath(name)
        plain = name == path.as_posix() and not path.is_absolute() and ".." not in path.parts and name not in ("", ".")
        if not plain or _CONTROL.search(name) or max(map(len, path.parts)) > 255 or len(name) > 1000:
            problems.append(f"{_said(name)} is no name of a file in a bundle")
        elif name in UNHASHED:
            problems.append(f"{name} can't be hashed by the manifest")
        elif not _SHA256.fullmatch(digest):
            problems.append(f"{_said(name)} has no sha256")
    folders = {parent.as_posix() for name in files for parent in PurePosixPath(name).parents} - {"."}
    alike = Counter(_folded(name) for name in (*files, *folders, *UNHASHED))
    problems += [f"{_said(name)} differs from another only by case" for name in files if alike[_folded(name)] > 1]
    problems += [f"{_said(name)} may be executed and is no file" for name in executables if name not in files]
    return problems


def bad_entries(folder: Path, files: Mapping[str, str], executables: Collection[str]) -> list[str]:
    """Compare everything below ``folder`` with what the manifest names, links, modes and empty folders included.

    Args:
        files: sha256 by name.
        executables: names of those that may be executed.
    """
    problems, seen = [], set()
    folders = {parent.as_posix() for name in files for parent in PurePosixPath(name).parents} - {"."}
    allowed = set(executables)
    for entry in entries(folder):
        name = Path(entry.path).relative_to(folder).as_posix()
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            if name not in folders:
                problems.append(f"the folder {_said(name)} was added")
            elif mode & _FORBIDDEN_FOLDER_MODE:
                problems.append(f"the folder {_said(name)} has mode {stat.S_IMODE(mode):03o}")
        elif not stat.S_ISREG(mode):
            problems.append(f"{_said(name)} is neither file nor folder")
        elif name.startswith(ASIDE):
            problems.append(f"{_said(name)} was left by a measurement that was killed: remove it")
        elif name not in files and name not in UNHASHED:
            problems.append(f"{_said(name)} was added")
        else:
            seen.add(name)
            wanted = 0o500 if name in allowed else 0o400
            if mode & (_FORBIDDEN_FILE_MODE | (0 if name in allowed else 0o111)) or mode & wanted != wanted:
                problems.append(f"{_said(name)} has mode {stat.S_IMODE(mode):03o}")
            if name in files and sha256_file(Path(entry.path)) != files[name]:
                problems.append(f"{_said(name)} was changed")
    return problems + [f"{_said(name)} is missing" for name in (*files, *UNHASHED) if name not in seen]


def _said(name: str) -> str:
    return printable(name, limit=200)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
