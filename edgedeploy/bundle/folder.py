"""Writing a bundle aside and moving it into place, so that nothing half-done is ever found under its name."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from edgedeploy.errors import InputError, ToolFailedError

WORK_PREFIX = ".edgedeploy-work-"


def sha256_file(path: Path) -> str:
    """Hash one file without reading it whole."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_tree(folder: Path, exclude: tuple[str, ...] = ()) -> dict[str, str]:
    """Hash every file below ``folder`` by its POSIX path, sorted; ``exclude`` names paths left out."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: sha256_file(path) for name, path in names.items() if name not in exclude}


@contextlib.contextmanager
def work_folder(output: Path) -> Iterator[Path]:
    """Give a fresh folder inside ``output`` (so that moving from it is a rename) and remove it in any case.

    Folders that a killed run left behind are removed too. ``output`` itself is created, and removed again
    if nothing was left in it.

    Raises:
        InputError: ``output`` is a file or can't be written.
    """
    existed = output.exists()
    if existed and not output.is_dir():
        raise InputError(f"The output folder {output} is a file.", remedy="Give another folder: --output DIR")
    try:
        output.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(output)
        folder = Path(tempfile.mkdtemp(prefix=f"{WORK_PREFIX}{os.getpid()}-", dir=output))
    except OSError as error:
        raise InputError(
            f"The output folder {output} can't be written.", found=str(error), remedy="Give another: --output DIR"
        ) from None
    try:
        yield folder
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ToolFailedError(
                "The disk is full; nothing was changed.", found=str(error), remedy=f"Free space under {output}."
            ) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not existed:
            with contextlib.suppress(OSError):
                output.rmdir()


def move_into_place(source: Path, destination: Path) -> None:
    """Replace the folder ``destination`` by ``source``; whatever stops this in between, one of them is there whole."""
    previous = source.parent / f"previous-{destination.name}"
    if destination.exists():
        destination.rename(previous)
    try:
        source.rename(destination)
    except BaseException:
        if previous.exists():
            previous.rename(destination)
        raise
    shutil.rmtree(previous, ignore_errors=True)


def _remove_abandoned(output: Path) -> None:
    for folder in output.glob(f"{WORK_PREFIX}*"):
        owner = folder.name.removeprefix(WORK_PREFIX).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            _rescue(folder, output)
            shutil.rmtree(folder, ignore_errors=True)


def _rescue(folder: Path, output: Path) -> None:
    """Put back a bundle that a run was replacing in the instant it was killed."""
    for previous in folder.rglob("previous-*"):
        destination = output / previous.name.removeprefix("previous-")
        if previous.is_dir() and not destination.exists():
            previous.rename(destination)
