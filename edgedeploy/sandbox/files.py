"""Which files a worker may change, enforced by Landlock (Linux 5.13 and later, no privileges needed).

Reading stays possible everywhere: what a vendor's tool needs lies in too many places to list. Numbers and structures
are those of ``linux/landlock.h``.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on every architecture
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_PR_SET_NO_NEW_PRIVS = 38

_WRITE_FILE = 1 << 1
#: Remove and make entries of every kind, by the version of Landlock that knows the right.
_FOLDER_RIGHTS = {1: sum(1 << bit for bit in range(4, 13)), 2: 1 << 13}
_TRUNCATE = {3: 1 << 14}
#: Since version 6: no signal to, and no abstract socket of, a process outside.
_SCOPES = 0b11
#: Devices that programs open for writing.
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "dri", "kgsl-3d0", "dma_heap")
_DEVICE_STARTS = ("nvidia",)


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def only_writable(paths: Sequence[Path]) -> bool:
    """Make everything but ``paths`` (and a few devices) read-only for this process and all it starts.

    Returns:
        False where the kernel has no Landlock or refuses; nothing is changed then.
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
    except OSError:
        return False
    version = libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    if version < 1:
        return False
    folder = sum(rights for since, rights in _FOLDER_RIGHTS.items() if version >= since)
    file = _WRITE_FILE | sum(rights for since, rights in _TRUNCATE.items() if version >= since)
    attributes = _Ruleset(folder | file, 0, _SCOPES if version >= 6 else 0)
    # An older kernel takes a larger structure as long as what it does not know is zero.
    ruleset = libc.syscall(_CREATE, ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes)), 0)
    if ruleset < 0:
        return False
    try:
        for path in (*(path for path in paths if path.exists()), *_devices()):
            _allow(libc, ruleset, path, folder | file if path.is_dir() else file)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            return False
        return bool(libc.syscall(_RESTRICT, ruleset, 0) == 0)
    except OSError:
        return False
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _PathBeneath(rights, parent)
        if libc.syscall(_ADD, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    finally:
        os.close(parent)


def _devices() -> list[Path]:
    folder = Path("/dev")
    found = [folder / name for name in _DEVICES]
    found += [path for start in _DEVICE_STARTS for path in folder.glob(f"{start}*")]
    return [path for path in found if path.exists()]
