"""What every way of reaching a device offers, and the one place that starts a host program for it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from edgedeploy.errors import InputError, ToolFailedError

#: Seconds that a transfer may take before it counts as failed.
TRANSFER_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Completed:
    """A finished program: ``returncode`` is negative where a signal ended it; text is UTF-8, bad bytes replaced."""

    returncode: int
    stdout: str
    stderr: str


class Transport(Protocol):
    """Carries files to a device and runs programs there."""

    def push(self, local: Path, remote: str) -> None:
        """Copy a file or folder to the path ``remote``, making its parent folders.

        Raises:
            InputError: ``local`` is not there.
            ToolFailedError: the device cannot be reached, refuses, or takes too long.
        """
        ...

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file or folder from the device to the path ``local``.

        Raises:
            ToolFailedError: as `push`, or ``remote`` is not there.
        """
        ...

    def run(self, argv: Sequence[str], timeout_s: float, env: Mapping[str, str] | None = None) -> Completed:
        """Run a program with exactly these arguments (no shell reads them) and wait for it.

        Raises:
            ToolFailedError: the device cannot be reached, or ``timeout_s`` passed; the program is then ended.
        """
        ...

    def describe(self) -> str:
        """One phrase for the report: "ssh pi@kitchen"."""
        ...


def require_local(local: Path) -> None:
    """`InputError` where a file or folder to send is missing."""
    if not local.exists():
        raise InputError(f"{local} cannot be sent to the device.", found="no such file or folder")


def invoke(
    argv: Sequence[str],
    *,
    timeout_s: float,
    what: str,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
) -> Completed:
    """Run a host program in a session of its own, so that a timeout ends its children too.

    Args:
        argv: the program and its arguments.
        timeout_s: seconds after which it is killed.
        what: what it was doing, for the message ("Copying to ssh pi@kitchen").
        env: variables added to this process's own.
        stdin: an open file to read from; nothing otherwise.
        stdout: an open file that takes what the program writes; `Completed.stdout` is then empty.

    Raises:
        ToolFailedError: on a timeout.
        FileNotFoundError: where the program is not installed; each transport says how to install its own.
    """
    process = subprocess.Popen(
        list(argv),
        stdin=stdin or subprocess.DEVNULL,
        stdout=stdout or subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(env or {})},
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout_s)
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise ToolFailedError(
                f"{what} took longer than {timeout_s:g} s and was ended.",
                found=" ".join(map(str, argv))[:500],
                remedy="See that the device is reachable and idle, then run again.",
            ) from None
        raise
    return Completed(process.returncode, (out or b"").decode(errors="replace"), err.decode(errors="replace"))


def last_lines(text: str, count: int = 4) -> str:
    """The last lines of a program's output, joined, for the ``found`` of an error."""
    return " | ".join(line.strip() for line in text.strip().splitlines()[-count:] if line.strip())
