"""A board behind a serial line: it takes and sends lines of text; files do not travel here."""

from __future__ import annotations

import re
import time
from types import TracebackType
from typing import Any

from edgedeploy.errors import InputError, MissingToolError, ToolFailedError

DEFAULT_BAUD = 115_200


class SerialLine:
    """An open port, 8N1, used as a context manager.

    Args:
        port: what the operating system calls it ("/dev/ttyACM0").
        baud: symbols a second.

    Raises:
        MissingToolError: pyserial is not installed.
        ToolFailedError: the port is not there or is in use.
    """

    def __init__(self, port: str, baud: int = DEFAULT_BAUD) -> None:
        try:
            import serial
        except ImportError:
            raise MissingToolError("pyserial", install="pip install 'edgedeploy[serial]'") from None
        self.port = port
        self.baud = baud
        self._buffer = bytearray()
        try:
            self._serial: Any = serial.Serial(port, baud, timeout=0.05, write_timeout=10, exclusive=True)
        except (serial.SerialException, OSError, ValueError) as error:
            raise ToolFailedError(
                f"The serial port {port} cannot be opened.",
                found=str(error),
                remedy="See that the board is connected, that no other program holds the port, "
                "and that this user may open it (group dialout).",
            ) from None

    @classmethod
    def parse(cls, address: str) -> SerialLine:
        """Open ``PORT`` or ``PORT@BAUD``; `InputError` where it cannot be read."""
        return cls(*cls.read_address(address))

    @staticmethod
    def read_address(address: str) -> tuple[str, int]:
        """Port and baud rate of ``PORT`` or ``PORT@BAUD``; nothing is opened. `InputError` where it cannot be read."""
        port, at, baud = address.partition("@")
        if not port or not port.isprintable() or (at and re.fullmatch("[1-9][0-9]{0,8}", baud) is None):
            raise InputError(
                "The serial address of the board cannot be read.",
                found=repr(address),
                remedy="Write serial:PORT or serial:PORT@BAUD, as in serial:/dev/ttyACM0@115200.",
            )
        return port, int(baud) if at else DEFAULT_BAUD

    def write(self, data: bytes) -> None:
        """Send bytes; `ToolFailedError` where the board is gone or takes none for 10 s."""
        import serial

        try:
            self._serial.write(data)
            self._serial.flush()
        except (serial.SerialException, OSError) as error:
            raise self._gone("Sending to", error) from None

    def read_line(self, timeout_s: float) -> str:
        """Wait for one line and return it without its line end.

        Raises:
            ToolFailedError: the board is gone, or no line end came in ``timeout_s``.
        """
        import serial

        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            try:
                self._buffer += self._serial.read(max(1, self._serial.in_waiting))
            except (serial.SerialException, OSError) as error:
                raise self._gone("Reading from", error) from None
            if b"\n" not in self._buffer and time.monotonic() > deadline:
                raise ToolFailedError(
                    f"The board on {self.port} sent no line for {timeout_s:g} s.",
                    found=repr(bytes(self._buffer[-80:])) if self._buffer else "nothing",
                    remedy=f"See that it runs this firmware and talks at {self.baud} baud.",
                )
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        return line.rstrip(b"\r").decode(errors="replace")

    def describe(self) -> str:
        """Say which device this is."""
        return f"serial {self.port}"

    def close(self) -> None:
        """Give the port back."""
        self._serial.close()

    def __enter__(self) -> SerialLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _gone(self, doing: str, error: Exception) -> ToolFailedError:
        return ToolFailedError(
            f"{doing} the board on {self.port} failed.", found=str(error), remedy="Reconnect the board and run again."
        )
