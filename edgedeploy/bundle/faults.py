"""What the file system may answer while a run reads and writes, as sentences with the right exit code."""

from __future__ import annotations

import errno
from pathlib import Path

from edgedeploy.errors import EdgeDeployError, InputError, ToolFailedError
from edgedeploy.exhausted import RESOURCES
from edgedeploy.untrusted import shown

_FAULTS: dict[int, tuple[type[EdgeDeployError], str, str]] = {
    **{number: (ToolFailedError, what, remedy) for number, (what, remedy) in RESOURCES.items()},
    errno.ESTALE: (ToolFailedError, "The network folder is gone.", "Mount it again, or give another: --output DIR"),
    errno.EROFS: (InputError, "The folder is on a read-only file system.", "Give another: --output DIR"),
    errno.EACCES: (InputError, "The folder may not be written.", "Give another: --output DIR"),
    errno.EPERM: (InputError, "The folder may not be changed.", "Give another: --output DIR"),
    errno.ENAMETOOLONG: (InputError, "A name is too long for this file system.", "Give a shorter one: --output DIR"),
    errno.EBUSY: (
        InputError,
        "A folder is in use as a mount point, so that it can't be replaced.",
        "Mount its parent folder instead, or give another: --output DIR",
    ),
}
_GONE = (errno.ENOENT, errno.ENOTDIR)


def fault(error: OSError, work: Path) -> EdgeDeployError | None:
    """Say what ``error`` means for a run that writes below ``work``; ``None`` for one that points to a bug."""
    if error.errno in _GONE and not work.is_dir():
        return ToolFailedError(
            "The folder of this run was deleted while it was at work.",
            found=shown(work),
            remedy="Run it again, and leave folders named .edgedeploy-work-… alone meanwhile.",
        )
    kind, what, remedy = _FAULTS.get(error.errno or 0, (None, "", ""))
    if kind is None:
        return None
    return kind(what, found=f"{error.strerror}: {shown(error.filename or work)}", remedy=remedy)
