"""The files of a bundle and their hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256_file(path: Path) -> str:
    """Hash one file without reading it whole."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_tree(folder: Path, exclude: tuple[str, ...] = ()) -> dict[str, str]:
    """Hash every file below ``folder`` by its POSIX path, sorted; ``exclude`` names paths left out."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: sha256_file(path) for name, path in names.items() if name not in exclude}
