"""How a runner reaches a device: local, ssh, adb, serial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgedeploy.errors import InputError
from edgedeploy.targets.transports.transport import Completed, Transport

if TYPE_CHECKING:
    from edgedeploy.targets.transports.serial import SerialLine

__all__ = ["Completed", "Transport", "check_address", "open_serial", "open_transport"]

_ADDRESSES = "local, ssh:USER@HOST[:PORT], adb:SERIAL or serial:PORT[@BAUD]"


def open_transport(address: str) -> Transport:
    """Return the transport for ``local``, ``ssh:USER@HOST[:PORT]`` or ``adb:SERIAL``; nothing is contacted yet.

    Raises:
        InputError: for any other address; a serial line carries no files and is opened by `open_serial`.
    """
    kind, _, rest = address.partition(":")
    if address == "local":
        from edgedeploy.targets.transports.local import LocalTransport

        return LocalTransport()
    if kind == "ssh":
        from edgedeploy.targets.transports.ssh import SshTransport

        return SshTransport.parse(rest)
    if kind == "adb":
        from edgedeploy.targets.transports.adb import AdbTransport

        return AdbTransport.parse(rest)
    if kind == "serial":
        raise InputError(
            "A serial line cannot carry files or run programs, which this target needs.",
            found=repr(address),
            remedy="Reach the device by ssh:USER@HOST or adb:SERIAL.",
        )
    raise _unknown(address)


def open_serial(address: str) -> SerialLine:
    """Open ``serial:PORT[@BAUD]``.

    Raises:
        InputError: for any other address.
        MissingToolError: pyserial is not installed.
        ToolFailedError: the port cannot be opened.
    """
    kind, _, rest = address.partition(":")
    if kind in ("ssh", "adb") or address == "local":
        raise InputError(
            "This target is reached over a serial line.", found=repr(address), remedy="Write serial:PORT[@BAUD]."
        )
    if kind != "serial":
        raise _unknown(address)
    from edgedeploy.targets.transports.serial import SerialLine

    return SerialLine.parse(rest)


def check_address(address: str, kinds: Sequence[str], target: str) -> None:
    """Refuse an address that cannot be read, or of a kind by which a target cannot be reached; nothing is contacted.

    Raises:
        InputError: with the kinds that ``target`` can be reached by.
    """
    kind, _, rest = address.partition(":")
    if kind == "serial":
        from edgedeploy.targets.transports.serial import SerialLine

        SerialLine.read_address(rest)
    else:
        open_transport(address)
    if kind not in kinds:
        forms = {"local": "local", "ssh": "ssh:USER@HOST[:PORT]", "adb": "adb:SERIAL", "serial": "serial:PORT[@BAUD]"}
        raise InputError(
            f"{target} cannot be reached by {kind}.",
            found=repr(address),
            remedy=f"Write --device {' or '.join(forms.get(item, item) for item in kinds)}.",
        )


def _unknown(address: str) -> InputError:
    return InputError("The device address cannot be read.", found=repr(address), remedy=f"Write {_ADDRESSES}.")
