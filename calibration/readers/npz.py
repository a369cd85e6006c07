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
from edgedeploy.calibration.readers.spool import FileBytes, Spool
from edgedeploy.errors import InputError
from edgedeploy.tensors import TensorSpec

#: Length of a zip local file header before the name; the name's and the extra field's lengths are its last words.
_LOCAL_HEADER = struct.Struct("<26xHH")


def open_npz(path: Path, inputs: Sequence[TensorSpec]) -> ArraysReader:
    """Open an .npz whose arrays are named after the model's inputs (and ``labels``); nothing is unpickled.

    Raises:
        InputError: not an .npz, damaged, holding pickled objects, or not fitting the model.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            arrays = {
                info.filename.removesuffix(".npy"): _member(archive, info, file, path) for info in archive.infolist()
            }
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise InputError(f"{path} is not an npz file, or it is damaged.", found=str(error)) from None
    return ArraysReader(arrays, inputs, str(path))


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: IO[bytes], path: Path) -> ArrayFile:
    what = f"{path}, array {info.filename.removesuffix('.npy')!r}"
    with archive.open(info) as stream:
        header = read_header(stream, what)
        if info.file_size - stream.tell() < header.size_bytes:
            raise InputError(f"{what} is cut short.", found=f"{info.file_size} bytes for shape {header.shape}")
        if info.compress_type != zipfile.ZIP_STORED:
            return _unpacked(stream, header)
        return ArrayFile(FileBytes(path), _data_start(file, info) + stream.tell(), header)


def _data_start(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    file.seek(info.header_offset)
    name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return info.header_offset + _LOCAL_HEADER.size + int(name) + int(extra)


def _unpacked(stream: IO[bytes], header: Header) -> ArrayFile:
    """Unpack to disk: random access without holding the array in memory."""
    spool = Spool()
    for content in chunks(stream, header.size_bytes):
        spool.append(content)
    return ArrayFile(spool, 0, header)
