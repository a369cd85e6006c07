"""A device behind ssh: the system's own `ssh`, so that keys, agents, jump hosts and ~/.ssh/config all work.

Files travel as tar streams over ssh rather than by scp, whose two protocols quote remote paths differently.
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgedeploy.errors import InputError, MissingToolError, ToolFailedError
from edgedeploy.targets.transports.transport import (
    TRANSFER_TIMEOUT_S,
    Completed,
    invoke,
    last_lines,
    require_local,
)

#: ssh itself failed (connection, authentication); any other code is the remote program's.
SSH_FAILED = 255
#: coreutils' `timeout` ended the program.
TIMED_OUT = 124
CONNECT_TIMEOUT_S = 10
#: Seconds that ssh gets beyond the remote program's own limit, for connecting and reporting.
GRACE_S = 20.0

_ADDRESS = re.compile(
    r"(?:(?P<user>[A-Za-z0-9._-]+)@)?(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:%.]+\])(?::(?P<port>\d+))?"
)

_REMEDIES: tuple[tuple[str, str], ...] = (
    ("Host key verification failed", "Connect once by hand (`{ssh}`) and check the key it shows."),
    ("Permission denied", "Set up a key that needs no password (`ssh-copy-id {who}`) and try `{ssh}`."),
    ("Could not resolve hostname", "Check the host name; `{ssh}` must work by hand."),
    ("Connection refused", "See that the ssh server runs there and on which port (ssh:USER@HOST:PORT)."),
    ("timed out", "See that the device is switched on and in the same network."),
)


@dataclass(frozen=True)
class SshTransport:
    """``user@host[:port]``; a ssh client config other than the user's own can be named in EDGEDEPLOY_SSH_CONFIG."""

    host: str
    user: str = ""
    port: int | None = None

    @classmethod
    def parse(cls, address: str) -> SshTransport:
        """Read ``USER@HOST``, ``HOST`` or ``USER@HOST:PORT``; `InputError` for anything else."""
        match = _ADDRESS.fullmatch(address)
        if match is None or match["host"].startswith("-") or (match["user"] or "").startswith("-"):
            raise InputError(
                "The ssh address of the device cannot be read.",
                found=repr(address),
                remedy="Write ssh:USER@HOST or ssh:USER@HOST:PORT.",
            )
        port = int(match["port"]) if match["port"] else None
        return cls(match["host"].strip("[]"), match["user"] or "", port)

    def push(self, local: Path, remote: str) -> None:
        """Copy to the device; see `Transport.push`."""
        require_local(local)
        parent, name = _split(remote)
        with tempfile.TemporaryFile() as stream:
            with tarfile.open(fileobj=stream, mode="w") as archive:
                archive.add(local, arcname=name)
            stream.seek(0)
            command = f"mkdir -p {shlex.quote(parent)} && tar -xf - -C {shlex.quote(parent)}"
            self._checked(command, f"Copying {local.name} to {self.describe()}", stdin=stream)

    def pull(self, remote: str, local: Path) -> None:
        """Copy from the device; see `Transport.pull`."""
        parent, name = _split(remote)
        local.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile() as stream, tempfile.TemporaryDirectory(dir=local.parent) as aside:
            command = f"tar -cf - -C {shlex.quote(parent)} {shlex.quote('./' + name)}"
            self._checked(command, f"Fetching {remote} from {self.describe()}", stdout=stream)
            stream.seek(0)
            with tarfile.open(fileobj=stream, mode="r") as archive:
                archive.extractall(aside, filter="data")  # a device's archive may not write outside the folder
            (Path(aside) / name).replace(local)

    def run(self, argv: Sequence[str], timeout_s: float, env: Mapping[str, str] | None = None) -> Completed:
        """Run a program there; see `Transport.run`.

        The device's own `timeout`, where it has one, ends the program; closing a connection would not.
        """
        assignments = [f"{key}={value}" for key, value in (env or {}).items()]
        program = shlex.join(["env", *assignments, *argv] if assignments else list(argv))
        limit = max(1, round(timeout_s))
        script = (
            f"if command -v timeout >/dev/null 2>&1; then exec timeout -k 5 {limit} {program}; else exec {program}; fi"
        )
        what = f"Running {posixpath.basename(argv[0])} on {self.describe()}"
        done = self._ssh(script, what, timeout_s=limit + GRACE_S)
        if done.returncode == TIMED_OUT:
            raise ToolFailedError(
                f"{what} took longer than {limit} s and was ended.", remedy="See that the device is idle."
            )
        return done

    def describe(self) -> str:
        """Say which device this is."""
        return f"ssh {self._who}" + (f":{self.port}" if self.port else "")

    @property
    def _who(self) -> str:
        return f"{self.user}@{self.host}" if self.user else self.host

    def _checked(
        self, script: str, what: str, *, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None
    ) -> None:
        done = self._ssh(script, what, timeout_s=TRANSFER_TIMEOUT_S, stdin=stdin, stdout=stdout)
        if done.returncode:
            raise ToolFailedError(f"{what} failed.", found=last_lines(done.stderr) or f"exit code {done.returncode}")

    def _ssh(
        self,
        script: str,
        what: str,
        *,
        timeout_s: float,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
    ) -> Completed:
        # sh -c: the login shell may be one that reads POSIX syntax differently.
        argv = [*self._client(), f"sh -c {shlex.quote(script)}"]
        try:
            done = invoke(argv, timeout_s=timeout_s, what=what, stdin=stdin, stdout=stdout)
        except FileNotFoundError:
            raise MissingToolError("ssh", install="Install an OpenSSH client (apt install openssh-client).") from None
        if done.returncode == SSH_FAILED:
            raise self._unreachable(done.stderr)
        return done

    def _client(self) -> list[str]:
        config = os.environ.get("EDGEDEPLOY_SSH_CONFIG", "")
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": str(CONNECT_TIMEOUT_S),
            "ServerAliveInterval": "15",
            "ServerAliveCountMax": "4",
        }
        argv = ["ssh", *(["-F", config] if config else []), "-T"]
        for key, value in options.items():
            argv += ["-o", f"{key}={value}"]
        if self.port:
            argv += ["-p", str(self.port)]
        return [*argv, "--", self._who]

    def _unreachable(self, stderr: str) -> ToolFailedError:
        by_hand = f"ssh {f'-p {self.port} ' if self.port else ''}{self._who}"
        remedy = next((text for sign, text in _REMEDIES if sign in stderr), "`{ssh}` must work by hand first.")
        return ToolFailedError(
            f"{self.describe()} cannot be reached.",
            found=last_lines(stderr) or "ssh said nothing",
            remedy=remedy.format(ssh=by_hand, who=self._who),
        )


def _split(remote: str) -> tuple[str, str]:
    parent, name = posixpath.split(remote.rstrip("/"))
    if name in ("", ".", ".."):
        raise InputError("A path on the device must end in a file or folder name.", found=repr(remote))
    return parent or ".", name
