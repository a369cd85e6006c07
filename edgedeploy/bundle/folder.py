"""The folder of one run, beside the bundles that it will replace, so that moving them is a rename."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgedeploy.bundle.faults import fault
from edgedeploy.bundle.owner import PREFIX, is_abandoned, own_prefix
from edgedeploy.bundle.place import PREVIOUS, is_bundle
from edgedeploy.errors import InputError
from edgedeploy.untrusted import shown


@contextlib.contextmanager
def work_folder(output: Path) -> Iterator[Path]:
    """Give a fresh folder inside ``output`` and remove it in any case.

    Folders that a killed run left behind are removed too. ``output`` itself is created, and removed again
    if nothing was left in it.

    Raises:
        InputError: ``output`` is a file or can't be written.
        ToolFailedError: the disk is full or fails, or the folder is deleted, while the run is at work.
    """
    try:
        existed = output.exists()
        if existed and not output.is_dir():
            raise InputError(f"The output folder {shown(output)} is a file.", remedy="Give another: --output DIR")
        output.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(output)
        folder = Path(tempfile.mkdtemp(prefix=own_prefix(), dir=output))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(
            f"The output folder {shown(output)} can't be written.", found=why, remedy="Give another: --output DIR"
        ) from None
    try:
        yield folder
    except OSError as error:
        if (said := fault(error, folder)) is None:
            raise
        raise said from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not existed:
            with contextlib.suppress(OSError):
                output.rmdir()


def _remove_abandoned(output: Path) -> None:
    for folder in output.glob(f"{PREFIX}*"):
        status = folder.lstat()
        # A link, or what another user put there, may only look like ours.
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and is_abandoned(folder.name):
            _rescue(folder, output)
            shutil.rmtree(folder, ignore_errors=True)


def _rescue(folder: Path, output: Path) -> None:
    """Put back a bundle that a run was replacing in the instant it was killed, where swapping takes two renames."""
    for previous in folder.rglob(f"{PREVIOUS}*"):
        destination = output / previous.name.removeprefix(PREVIOUS)
        if is_bundle(previous) and not os.path.lexists(destination):
            previous.rename(destination)
