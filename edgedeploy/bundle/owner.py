"""Whose work folder is this? Its name says on which host, since which boot, in which container and by which process."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from pathlib import Path

import psutil

PREFIX = ".edgedeploy-work-"


def own_prefix() -> str:
    """How the names of this process's work folders begin."""
    return f"{PREFIX}{_machine()}-{os.getpid()}-{_started(os.getpid())}-"


def is_abandoned(name: str) -> bool:
    """True where a process of this very machine and container made the folder, and has ended.

    What another host or container made is never ours to judge: its processes can't be seen from here.
    """
    parts = name.removeprefix(PREFIX).split("-")
    if not name.startswith(PREFIX) or len(parts) < 4 or parts[0] != _machine() or not parts[1].isdecimal():
        return False
    return _started(int(parts[1])) != parts[2]


@cache
def _machine() -> str:
    """Name of this host, its boot and its namespace of process ids, shortened to 12 hex digits."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        boot, namespace = str(round(psutil.boot_time())), ""
    return hashlib.sha256(f"{platform.node()}\0{boot}\0{namespace}".encode()).hexdigest()[:12]


def _started(process: int) -> str:
    """When a process started; process ids are used again. Empty where there is no such process."""
    try:
        # Field 22 of proc(5), in ticks since the boot: unlike a time of day, no clock adjustment changes it.
        return Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    try:
        return str(round(psutil.Process(process).create_time()))
    except (psutil.Error, OverflowError, ValueError):
        return ""
