"""Moving a finished bundle to where it belongs: at every instant the old one or the new one is there, whole.

Nothing here knows what a run was: two paths are enough, so that the process that places a bundle needs not be the one
that made it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from edgedeploy.bundle.faults import fault
from edgedeploy.bundle.tree import MANIFEST
from edgedeploy.errors import EdgeDeployError, InputError, ToolFailedError
from edgedeploy.untrusted import entries, read_json, shown

#: How a bundle is called while it steps aside for another.
PREVIOUS = "previous-"

#: What every manifest of ours holds, whatever its format.
_MANIFEST_KEYS = {"format", "target", "backend", "artefact", "files"}
_MANIFEST_LIMIT = 64 << 20

#: renameat2(2), Linux 3.15.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def is_bundle(folder: Path) -> bool:
    """True where ``folder`` is a folder, no link, with a manifest of ours; whole or not."""
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return False
        manifest = read_json(folder / MANIFEST, limit=_MANIFEST_LIMIT)
    except (OSError, ValueError, InputError):
        return False
    return isinstance(manifest, dict) and manifest.keys() >= _MANIFEST_KEYS


def check_replaceable(destination: Path) -> None:
    """Refuse to replace what is no bundle of ours.

    Raises:
        InputError: a file, a link, a mount point, or a folder of something else.
    """
    try:
        mode = destination.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        raise InputError(
            f"{shown(destination)} can't be written.", found=str(error)[:300], remedy="Give another: --output DIR"
        ) from None
    remedy = "Move it away, or give another folder: --output DIR"
    if not stat.S_ISDIR(mode):
        kind = "a link" if stat.S_ISLNK(mode) else "no folder"
        raise InputError(f"{shown(destination)} would be replaced, and is {kind}.", remedy=remedy)
    if os.path.ismount(destination):
        raise InputError(
            f"{shown(destination)} is a mount point, so that it can't be replaced.",
            remedy="Mount its parent folder instead, or give another: --output DIR",
        )
    with contextlib.suppress(OSError):
        if not any(destination.iterdir()):
            return
    if not is_bundle(destination):
        raise InputError(
            f"{shown(destination)} would be replaced, and is no bundle of edgedeploy.",
            found=f"a folder without a {MANIFEST} of ours",
            remedy=remedy,
        )


def move_into_place(source: Path, destination: Path) -> None:
    """Replace the folder ``destination`` by ``source``; whatever stops this in between, one of them is there whole.

    Both lie on one file system, ``source`` in a work folder of ours. The new bundle is on the disk, not only in memory,
    before it takes the name. What it replaces is removed. Nothing in ``source`` is believed: a model may have taken
    over the process that made it.

    Raises:
        InputError: ``destination`` is no bundle of ours, or can't be replaced.
        ToolFailedError: the disk fails, or ``source`` is gone or no folder of plain files.
    """
    check_replaceable(destination)
    try:
        source.lstat()
        if not is_bundle(source):
            raise ToolFailedError("The run left no bundle to move into place.", found=shown(source))
        _sync(source)
        old = _swap(source, destination)
    except OSError as error:
        raise _refused(error, source, destination) from error
    with contextlib.suppress(OSError):  # a file system that can't sync a folder has placed the bundle all the same
        _sync_one(destination.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def remove_outdated(bundles: Iterable[Path], work: Path) -> None:
    """Remove bundles of earlier runs, each in one step; what is no bundle of ours stays.

    Args:
        bundles: where they would be.
        work: this run's work folder, which is removed with what was moved into it.
    """
    for index, bundle in enumerate(bundles):
        if is_bundle(bundle):
            with contextlib.suppress(OSError):
                bundle.rename(work / f"outdated-{index}")


def _swap(source: Path, destination: Path) -> Path | None:
    """Put ``source`` where ``destination`` is; return where the old folder is now, if there was one."""
    if not os.path.lexists(destination):
        source.rename(destination)
        return None
    if _exchange(source, destination):
        return source
    previous = source.parent / f"{PREVIOUS}{destination.name}"
    destination.rename(previous)
    try:
        source.rename(destination)
    except BaseException:
        previous.rename(destination)
        raise
    return previous


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change names in one step; False where this system or file system can't."""
    call = _renameat2()
    if call is None:
        return False
    sys.audit("os.rename", str(one), str(other), -1, -1)
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


@cache
def _renameat2() -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    call.restype = ctypes.c_int
    found: Callable[..., int] = call
    return found


def _sync(folder: Path) -> None:
    """Have every file and folder below ``folder`` written to the disk; refuse links, FIFOs and devices."""
    for entry in entries(folder):
        if not (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)):
            raise ToolFailedError("The run made a bundle that is not all files and folders.", found=shown(entry.path))
        _sync_one(Path(entry.path))
    _sync_one(folder)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_EXCHANGE:  # some file systems of networks know no fsync of a folder
            raise
    finally:
        os.close(descriptor)


def _refused(error: OSError, source: Path, destination: Path) -> EdgeDeployError:
    said = fault(error, source)
    if said is None:
        said = ToolFailedError("The bundle can't be moved into place.", found=str(error)[:300])
    said.found += f"; {shown(destination)} is as it was"
    return said
