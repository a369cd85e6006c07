"""`ArrayFile`: one array in .npy format somewhere in a file, read row by row and never as a whole."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from edgedeploy.calibration.readers.spool import Bytes, FileBytes
from edgedeploy.errors import InputError
from edgedeploy.untrusted import check_regular

#: Bytes of a .npy header; numpy writes some hundred.
MOST_HEADER_BYTES = 10_000
#: Axes of an array.
MOST_AXES = 32
#: Bytes of an array that is read as a whole: labels, or one sample.
MOST_BYTES_AT_ONCE = 2 << 30


@dataclass(frozen=True)
class Header:
    """What a .npy header says: element type and shape (C order)."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole array."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of one step along the first axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


@dataclass(frozen=True)
class ArrayFile:
    """An array whose rows lie one after another.

    Attributes:
        content: what they lie in.
        offset: of the first row, in bytes.
        header: type and shape.
    """

    content: Bytes
    offset: int
    header: Header

    def rows(self, start: int, count: int) -> NDArray[np.generic]:
        """Read ``count`` rows along the first axis."""
        header = self.header
        content = self.content.read(self.offset + start * header.row_bytes, count * header.row_bytes)
        return np.frombuffer(content, header.dtype).reshape(count, *header.shape[1:])

    def all(self) -> NDArray[np.generic]:
        """Read the whole array; `InputError` where it is larger than `MOST_BYTES_AT_ONCE`."""
        if self.header.size_bytes > MOST_BYTES_AT_ONCE:
            raise InputError(
                "An array of labels, or of one sample, is too large.",
                found=f"{self.header.size_bytes / 1e9:.3g} GB of shape {self.header.shape}",
            )
        return self.rows(0, self.header.shape[0]) if self.header.shape else self.rows(0, 1).reshape(())


def read_header(stream: IO[bytes], what: str) -> Header:
    """Read a .npy header and leave the stream at the first row; nothing is unpickled.

    Raises:
        InputError: not a .npy, an array of pickled objects, structured, in Fortran order, or of no possible shape.
    """
    try:
        shape, fortran, dtype = _parsed(stream)
    except Exception as error:  # numpy raises whatever a header makes its parsers raise
        found = str(error)[:200] or type(error).__name__
        raise InputError(f"{what} is not a .npy array, or it is damaged.", found=found) from None
    if dtype.hasobject:
        raise InputError(
            f"{what} holds pickled Python objects, which could run code; it is refused.",
            found=f"dtype {dtype}",
            remedy="Save plain arrays: one row per sample, all of the same shape, of a number type.",
        )
    if dtype.names or dtype.subdtype or dtype.kind not in "biuf":
        raise InputError(f"{what} does not hold plain numbers.", found=f"dtype {str(dtype)[:200]}")
    if fortran and len(shape) > 1:
        raise InputError(
            f"{what} is stored in Fortran order, so one sample cannot be read without all the others.",
            remedy="Save numpy.ascontiguousarray(array).",
        )
    return Header(dtype, shape)


def _parsed(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Shape, order and type; numpy reads a header's whole length before it looks at it, so that is looked at first."""
    version = npy.read_magic(stream)  # type: ignore[no-untyped-call]
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format version {version}")
    prefix = stream.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(prefix, "little")
    if length > MOST_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes")
    read: Any = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        shape, fortran, dtype = read(io.BytesIO(prefix + stream.read(length)))
    if any(type(size) is not int or not 0 <= size < 2**62 for size in shape) or len(shape) > MOST_AXES:
        raise ValueError(f"shape {str(shape)[:100]}")
    return tuple(shape), bool(fortran), dtype


def open_npy(path: Path) -> ArrayFile:
    """Open a .npy file; `InputError` where it is not one or is cut short."""
    check_regular(path)
    try:
        with path.open("rb") as file:
            header = read_header(file, str(path))
            offset = file.tell()
        size = path.stat().st_size - offset
    except OSError as error:
        raise InputError(f"{path} cannot be read.", found=str(error)) from None
    if size < header.size_bytes:
        raise InputError(f"{path} is cut short.", found=f"{size} of {header.size_bytes} bytes")
    return ArrayFile(FileBytes(path), offset, header)


def chunks(stream: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield ``size`` bytes of a stream, a mebibyte at a time; fewer where it ends early."""
    while size > 0 and (content := stream.read(min(size, 1 << 20))):
        size -= len(content)
        yield content
