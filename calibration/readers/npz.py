"""Samples from an .npz file: rows of uncompressed members are read in place, compressed ones unpacked to disk once."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from edgedeploy.calibration.readers.array_file import ArrayFile, Header, chunks, read_header
from edgedeploy.calibration.readers.arrays import ArraysReader
from edgedeploy.calibration.readers.reader import check_names
from edgedeploy.calibration.readers.spool import FileBytes, Spool
from edgedeploy.errors import InputError
from edgedeploy.tensors import TensorSpec

#: Length of a zip local file header before the name; the name's and the extra field's lengths are its last words.
_LOCAL_HEADER = struct.Struct("<26xHH")

#: An array of at most this many bytes is unpacked whatever its ratio; beyond, at most this ratio is believed.
FREE_BYTES = 256 << 20
MOST_RATIO = 100

#: What zipfile and numpy raise for files that are damaged, encrypted or made to deceive.
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError,
    OverflowError, MemoryError,
)  # fmt: skip


def open_npz(path: Path, inputs: Sequence[TensorSpec]) -> ArraysReader:
    """Open an .npz whose arrays are named after the model's inputs (and ``labels``); nothing is unpickled.

    Raises:
        InputError: not an .npz, damaged, holding pickled objects, or not fitting the model.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = [(info.filename.removesuffix(".npy"), info) for info in archive.infolist()]
            names = [name for name, _ in members]
            if len(set(names)) != len(names):
                raise zipfile.BadZipFile("two arrays of one name")
            check_names(names, inputs, str(path))
            arrays = {name: _member(archive, info, file, path) for name, info in members}
    except _DAMAGED as error:
        found = str(error)[:200] or type(error).__name__
        raise InputError(f"{path} is not an npz file, or it is damaged.", found=found) from None
    return ArraysReader(arrays, inputs, str(path))


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: IO[bytes], path: Path) -> ArrayFile:
    what = f"{path}, array {info.filename.removesuffix('.npy')!r}"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{what} is packed in a way that numpy does not.", found=f"method {info.compress_type}")
    with archive.open(info) as stream:
        header = read_header(stream, what)
        held = info.file_size - stream.tell()
        if held < header.size_bytes:
            raise InputError(f"{what} is cut short.", found=f"{info.file_size} bytes for shape {header.shape}")
        if held > header.size_bytes:
            raise InputError(f"{what} holds more than its header says.", found=f"{held} bytes for {header.shape}")
        if info.compress_type != zipfile.ZIP_STORED:
            _refuse_bomb(info, what)
            return _unpacked(stream, header, what)
        return ArrayFile(FileBytes(path), _data_start(file, info) + stream.tell(), header)


def _refuse_bomb(info: zipfile.ZipInfo, what: str) -> None:
    """A small file may not fill the disk."""
    if info.file_size > FREE_BYTES and info.file_size > MOST_RATIO * max(info.compress_size, 1):
        raise InputError(
            f"{what} is packed suspiciously well.",
            found=f"{info.file_size / 1e6:.0f} MB from {info.compress_size / 1e6:.3g} MB",
            remedy="If it is yours, save it with numpy.savez (not savez_compressed).",
        )


def _data_start(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    file.seek(info.header_offset)
    name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return info.header_offset + _LOCAL_HEADER.size + int(name) + int(extra)


def _unpacked(stream: IO[bytes], header: Header, what: str) -> ArrayFile:
    """Unpack to disk: random access without holding the array in memory."""
    spool, size = Spool(), 0
    for content in chunks(stream, header.size_bytes):
        spool.append(content)
        size += len(content)
    if size != header.size_bytes:
        raise InputError(f"{what} is cut short.", found=f"{size} of {header.size_bytes} bytes")
    return ArrayFile(spool, 0, header)
