"""Bytes that are read at an offset: a file that is there, or a nameless one that holds what has no random access."""

from __future__ import annotations

import os
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgedeploy.errors import InputError


class Bytes(Protocol):
    """Random access."""

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset``."""
        ...


@dataclass(frozen=True)
class FileBytes:
    """A file on disk, opened for each read, so that none stays open."""

    path: Path

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset``; `InputError` where the file went away or shrank."""
        try:
            with self.path.open("rb", buffering=0) as file:
                content = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise InputError(f"{self.path} cannot be read.", found=str(error)) from None
        if len(content) != size:
            raise InputError(f"{self.path} changed while it was read.", found=f"{len(content)} of {size} bytes")
        return content


class Spool:
    """A temporary file without a name, gone with this object (or with the process, however that ends)."""

    def __init__(self) -> None:
        self._file, name = tempfile.mkstemp()
        Path(name).unlink()
        self._end = 0
        weakref.finalize(self, os.close, self._file)

    def append(self, content: bytes) -> int:
        """Write at the end; returns the offset. `InputError` where the disk is full."""
        offset = self._end
        try:
            while content:
                written = os.pwrite(self._file, content, self._end)
                self._end, content = self._end + written, content[written:]
        except OSError as error:
            raise InputError(
                "Calibration data cannot be unpacked to a temporary file.", found=str(error), remedy="Free disk space."
            ) from None
        return offset

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset``."""
        return os.pread(self._file, size, offset)
