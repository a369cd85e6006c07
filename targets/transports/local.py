"""This machine as the device."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgedeploy.errors import MissingToolError, ToolFailedError
from edgedeploy.targets.transports.transport import Completed, invoke, require_local


class LocalTransport:
    """Copies within this machine's file system and runs programs as this user."""

    def push(self, local: Path, remote: str) -> None:
        """Copy to another path of this machine; see `Transport.push`."""
        require_local(local)
        _copy(local, Path(remote))

    def pull(self, remote: str, local: Path) -> None:
        """Copy back; see `Transport.pull`."""
        if not Path(remote).exists():
            raise ToolFailedError(f"{remote} cannot be fetched.", found="no such file or folder on this machine")
        _copy(Path(remote), local)

    def run(self, argv: Sequence[str], timeout_s: float, env: Mapping[str, str] | None = None) -> Completed:
        """Run a program here; see `Transport.run`."""
        try:
            return invoke(argv, timeout_s=timeout_s, what=f"Running {Path(argv[0]).name} on this machine", env=env)
        except FileNotFoundError:
            raise MissingToolError(argv[0], install=f"Install {argv[0]} or put it on PATH.") from None

    def describe(self) -> str:
        """Say which device this is."""
        return "this machine"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)
