"""An Android device behind `adb` (Android platform-tools): push, pull, and shell with its exit code.

https://developer.android.com/tools/adb; `adb shell` passes the exit code on since Android 7.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedeploy.errors import InputError, MissingToolError, ToolFailedError
from edgedeploy.targets.transports.transport import (
    TRANSFER_TIMEOUT_S,
    Completed,
    invoke,
    last_lines,
    require_local,
)

_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")

#: What adb itself says when it could not reach the device (its exit code alone does not tell), and the cure.
_REMEDIES: tuple[tuple[str, str], ...] = (
    ("unauthorized", "Unlock the device and allow USB debugging for this computer."),
    ("offline", "Reconnect the device, then `adb reconnect`."),
    ("not found", "List the devices with `adb devices` and name one of them: adb:SERIAL."),
    ("no devices", "Connect the device and switch on USB debugging; `adb devices` must list it."),
    ("more than one device", "Name one of `adb devices`: adb:SERIAL."),
    ("cannot connect to daemon", "Start the server by hand: `adb start-server`."),
    (
        "insufficient permissions",
        "Install the udev rules for the device (apt install android-sdk-platform-tools-common).",
    ),
    ("closed", "The connection broke; reconnect the device and run again."),
)
_ADB_SAYS = re.compile(r"^(?:adb: |error: |adb: error: )(?P<text>.*)$", re.MULTILINE)


@dataclass(frozen=True)
class AdbTransport:
    """One device, by the serial that `adb devices` shows (or HOST:PORT)."""

    serial: str

    @classmethod
    def parse(cls, serial: str) -> AdbTransport:
        """Check the serial; `InputError` for one that adb could take for an option."""
        if _SERIAL.fullmatch(serial) is None:
            raise InputError(
                "The adb serial of the device cannot be read.",
                found=repr(serial),
                remedy="Write adb:SERIAL with a serial that `adb devices` lists.",
            )
        return cls(serial)

    def push(self, local: Path, remote: str) -> None:
        """Copy to the device; see `Transport.push`."""
        require_local(local)
        what = f"Copying {local.name} to {self.describe()}"
        parent = remote.rstrip("/").rpartition("/")[0]
        if parent:
            made = self.run(["mkdir", "-p", parent], timeout_s=60)
            if made.returncode:
                raise ToolFailedError(f"{what} failed.", found=last_lines(made.stderr or made.stdout))
        self._transfer(["push", str(local.resolve()), remote], what)

    def pull(self, remote: str, local: Path) -> None:
        """Copy from the device; see `Transport.pull`."""
        local.parent.mkdir(parents=True, exist_ok=True)
        self._transfer(["pull", remote, str(local.resolve())], f"Fetching {remote} from {self.describe()}")

    def run(self, argv: Sequence[str], timeout_s: float, env: Mapping[str, str] | None = None) -> Completed:
        """Run a program there; see `Transport.run`. adb hands one string to the device's shell, so it is quoted."""
        assignments = "".join(f"{key}={shlex.quote(value)} " for key, value in (env or {}).items())
        what = f"Running {argv[0].rpartition('/')[2]} on {self.describe()}"
        done = self._adb(["shell", assignments + shlex.join(argv)], what, timeout_s)
        if done.returncode:
            self._raise_if_unreachable(done)
        return done

    def describe(self) -> str:
        """Say which device this is."""
        return f"adb {self.serial}"

    def _transfer(self, arguments: list[str], what: str) -> None:
        done = self._adb(arguments, what, TRANSFER_TIMEOUT_S)
        if done.returncode:
            self._raise_if_unreachable(done)
            raise ToolFailedError(f"{what} failed.", found=last_lines(done.stderr or done.stdout))

    def _adb(self, arguments: list[str], what: str, timeout_s: float) -> Completed:
        try:
            return invoke(["adb", "-s", self.serial, *arguments], timeout_s=timeout_s, what=what)
        except FileNotFoundError:
            raise MissingToolError(
                "adb", install="Install Android platform-tools (apt install adb) and put adb on PATH."
            ) from None

    def _raise_if_unreachable(self, done: Completed) -> None:
        said = _ADB_SAYS.search(done.stderr)
        if said is None:
            return
        remedy = next((text for sign, text in _REMEDIES if sign in said["text"]), "")
        if remedy:
            raise ToolFailedError(f"{self.describe()} cannot be reached.", found=said["text"].strip(), remedy=remedy)
