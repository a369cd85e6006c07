"""Appending a run to a bundle: measurements.json and report.md are replaced, each in one step, and nothing else."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from edgedeploy.bundle.faults import fault
from edgedeploy.bundle.journal import appended
from edgedeploy.bundle.manifest import Measurement, to_json
from edgedeploy.bundle.read import check_bundle, read_bundle
from edgedeploy.bundle.tree import ASIDE, MEASUREMENTS, REPORT
from edgedeploy.errors import ToolFailedError
from edgedeploy.untrusted import shown


def append_run(folder: Path, run: Measurement) -> None:
    """Add a run to the bundle in ``folder``, after whatever others have appended while this one was measured.

    Raises:
        InputError: the bundle was changed meanwhile.
        ToolFailedError: it can't be written; it is as it was.
    """
    try:
        with _locked(folder) as descriptor:
            manifest, measurements = read_bundle(folder)
            check_bundle(folder, manifest, measurements)
            journal, report = appended(manifest, measurements, run)
            _replace(descriptor, MEASUREMENTS, to_json(journal))
            _replace(descriptor, REPORT, report)
    except OSError as error:
        said = fault(error, folder) or ToolFailedError("The disk refused it.", found=str(error)[:300])
        raise ToolFailedError(
            f"The measurement could not be appended to {shown(folder)}.", found=f"{said.what} {said.found}"
        ) from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Two that append at once do so one after the other. The lock ends with the process that holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _replace(folder: int, name: str, content: bytes) -> None:
    """Replace one file of the open folder; no link is followed, neither an old nor a planted one."""
    aside = f"{ASIDE}{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(aside, flags, 0o644, dir_fd=folder), "wb") as stream:
        try:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
            os.rename(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(aside, dir_fd=folder)
            raise
    os.fsync(folder)
