"""``weight.bin`` of an .mlpackage: every offset and length is checked before a byte is trusted.

Format (coremltools' MILBlob, ``StorageFormat.hpp``): a 64-byte header (count, version 2), then blobs, each
announced by 64 bytes at a 64-byte boundary: sentinel, type, size in bytes, offset of the data, padding in bits.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.errors import InputError
from edgedeploy.targets.coreml.dtypes import BY_BLOB, ScalarType

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEADER_BYTES = 64
_METADATA = struct.Struct("<IIQQQ")
_METADATA_BYTES = 64
_SENTINEL = 0xDEADBEEF
_VERSION = 2
_REMEDY = "Export the package again, or copy it again: the file is damaged."


class WeightFile:
    """A memory-mapped weight file.

    Raises:
        InputError: where the file is missing, shorter than its header or not a weight file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise InputError(f"The package has no weight file {path.name!r}.", found=str(path), remedy=_REMEDY)
        self.size_bytes = path.stat().st_size
        if self.size_bytes < _HEADER_BYTES:
            raise self._damaged(f"{self.size_bytes} bytes, less than the {_HEADER_BYTES}-byte header")
        # Copy-on-write: arrays made from it count as writable, and the file itself never changes.
        self._bytes = np.memmap(path, dtype=np.uint8, mode="c")
        _, version = struct.unpack("<II", self._bytes[:8].tobytes())
        if version != _VERSION:
            raise self._damaged(f"storage version {version}, expected {_VERSION}")

    def read(self, offset: int, scalar: ScalarType, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the blob announced at byte ``offset`` as an array of ``shape``.

        Types of whole bytes give a view of the mapped file, not a copy.

        Raises:
            InputError: for an offset or length outside the file, another type or another size than declared.
        """
        where = f"offset {offset} of {self.path.name} ({self.size_bytes} bytes)"
        if offset < _HEADER_BYTES or offset + _METADATA_BYTES > self.size_bytes:
            raise self._damaged(f"{where} is outside the file")
        sentinel, blob_type, size, start, padding_bits = _METADATA.unpack(
            self._bytes[offset : offset + _METADATA.size].tobytes()
        )
        if sentinel != _SENTINEL:
            raise self._damaged(f"{where} does not announce a blob")
        stored = BY_BLOB.get(blob_type)
        if stored is None or not _compatible(stored, scalar):
            raise self._damaged(f"{where} holds type {stored.name if stored else blob_type}, expected {scalar.name}")
        if start < _HEADER_BYTES or start + size > self.size_bytes:
            raise self._damaged(f"data at {start}+{size} bytes, announced at {where}, is outside the file")
        count = int(np.prod(shape, dtype=np.int64))
        expected_bits = count * scalar.bits
        if size * 8 - padding_bits != expected_bits:
            raise self._damaged(f"{where} holds {size * 8 - padding_bits} bits, shape {shape} needs {expected_bits}")
        data = self._bytes[start : start + size]
        if scalar.bits < 8:
            return unpack_bits(data, scalar, count).reshape(shape)
        return np.asarray(data).view(scalar.storage).reshape(shape)

    def _damaged(self, found: str) -> InputError:
        return InputError(f"The weight file {self.path.name!r} is damaged.", found=found, remedy=_REMEDY)


def unpack_bits(data: NDArray[np.uint8], scalar: ScalarType, count: int) -> NDArray[Any]:
    """Unpack ``count`` codes of ``scalar.bits`` each, least significant bit first, one a byte."""
    bits = np.unpackbits(np.asarray(data), count=count * scalar.bits, bitorder="little").reshape(count, scalar.bits)
    weights = (1 << np.arange(scalar.bits)).astype(np.int16)
    codes = bits.astype(np.int16) @ weights
    if scalar.storage is np.int8:
        codes = np.where(codes >= 1 << (scalar.bits - 1), codes - (1 << scalar.bits), codes)
    return codes.astype(scalar.storage)


def _compatible(stored: ScalarType, declared: ScalarType) -> bool:
    # bool constants are stored as bytes; everything else must agree exactly.
    return stored.name == declared.name or (declared.name == "bool" and stored.bits == 8)
