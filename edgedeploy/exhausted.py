"""Machines that run out of something are no defect of ours: a sentence for each resource, exit code 5."""

from __future__ import annotations

import errno

from edgedeploy.errors import CrashError, EdgeDeployError, ToolFailedError

#: What an operating system answers when a resource is used up: what happened, and the remedy.
RESOURCES: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("The disk is full.", "Free space there."),
    errno.EDQUOT: ("The disk quota is used up.", "Free space there, or ask for more."),
    errno.EFBIG: ("A file would be larger than allowed here.", "Raise the limit (ulimit -f)."),
    errno.EMFILE: ("This process may not open more files.", "Raise the limit (ulimit -n)."),
    errno.ENFILE: ("This machine may not open more files.", "Close other programs."),
    errno.EIO: ("The disk can't be read or written.", "Check the disk, or give another: --output DIR"),
    errno.ENOMEM: ("Memory ran out.", "Raise the limit (ulimit -v), or close other programs."),
    errno.EAGAIN: ("This user may not start more processes.", "Raise the limit (ulimit -u), or close other programs."),
}


def unexpected(error: BaseException) -> EdgeDeployError:
    """What an exception that nothing caught means: a resource that ran out, or a defect."""
    if isinstance(error, MemoryError):
        what, remedy = RESOURCES[errno.ENOMEM]
        return ToolFailedError(what, found=str(error)[:300], remedy=remedy)
    if isinstance(error, OSError) and error.errno in RESOURCES:
        what, remedy = RESOURCES[error.errno]
        return ToolFailedError(what, found=f"{error.strerror}: {error.filename or ''}".strip(": "), remedy=remedy)
    if isinstance(error, ImportError) and isinstance(error.__cause__, OSError | MemoryError):
        return unexpected(error.__cause__)
    return CrashError.of(error)
