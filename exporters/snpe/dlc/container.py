"""The DLC container: a ZIP of stored records whose CRC fields are 0, which `zipfile` therefore refuses to read.

Format: PKWARE APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14-16 (end records) and
4.5.3 (ZIP64 extra field). The central directory is the authority; every local header must agree with it.
"""

from __future__ import annotations

import itertools
import mmap
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgedeploy.exporters.snpe.dlc.errors import DlcError

_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_CENTRAL, _LOCAL = b"PK\x01\x02", b"PK\x03\x04"
_END_SIZE, _LONGEST_COMMENT = 22, 0xFFFF
_MOST_RECORDS = 4096  # real files hold about five


@dataclass(frozen=True)
class _Entry:
    name: str
    header: int
    size: int
    crc: int


def read_records(path: Path) -> Mapping[str, memoryview]:
    """Map a DLC and return its records by name, as views of the file (nothing is copied or unpacked).

    Raises:
        DlcError: not a ZIP, truncated, compressed, or its directory and local headers disagree.
    """
    try:
        with path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as problem:  # an empty file cannot be mapped: ValueError
        raise DlcError(f"{path.name}: {problem}") from problem
    try:
        return split_records(data)
    except struct.error as problem:
        raise DlcError(f"{path.name}: the container is cut off ({problem})") from problem


def split_records(data: memoryview) -> dict[str, memoryview]:
    """The records of a container in memory; raises what `read_records` does (or `struct.error` where cut off)."""
    records: dict[str, memoryview] = {}
    taken: list[tuple[int, int]] = []
    for entry in _directory(data):
        if entry.name in records:
            raise DlcError(f"two records are named {entry.name!r}")
        start = _data_start(data, entry)
        stop = start + entry.size
        if stop > len(data):
            raise DlcError(f"record {entry.name!r} ends at byte {stop} of a file of {len(data)} bytes")
        record = data[start:stop]
        if entry.crc and zlib.crc32(record) != entry.crc:
            raise DlcError(f"record {entry.name!r} does not match its checksum")
        records[entry.name] = record
        taken.append((entry.header, stop))
    taken.sort()
    for (_, stop), (start, _) in itertools.pairwise(taken):
        if start < stop:
            raise DlcError(f"two records overlap at byte {start}")
    return records


def _directory(data: memoryview) -> list[_Entry]:
    end = bytes(data[max(0, len(data) - _END_SIZE - _LONGEST_COMMENT) :]).rfind(_END)
    if end < 0 or bytes(data[:4]) != _LOCAL:
        raise DlcError(f"a file of {len(data)} bytes that is no ZIP container")
    end += max(0, len(data) - _END_SIZE - _LONGEST_COMMENT)
    count, size, start = struct.unpack_from("<HII", data, end + 10)
    if bytes(data[end - 20 : end - 16]) == _LOCATOR64:
        (end64,) = struct.unpack_from("<Q", data, end - 12)
        if end64 + 56 > len(data) or bytes(data[end64 : end64 + 4]) != _END64:
            raise DlcError(f"its ZIP64 end record is not at byte {end64}, where the locator says")
        count, size, start = struct.unpack_from("<QQQ", data, end64 + 32)
    if start + size > end or count > _MOST_RECORDS:
        raise DlcError(f"its directory claims {count} records in {size} bytes at byte {start}")
    entries, position = [], start
    for _ in range(count):
        entry, position = _central_entry(data, position, start + size)
        entries.append(entry)
    return entries


def _central_entry(data: memoryview, position: int, stop: int) -> tuple[_Entry, int]:
    if position + 46 > stop or bytes(data[position : position + 4]) != _CENTRAL:
        raise DlcError(f"no directory entry at byte {position}")
    flags, method = struct.unpack_from("<HH", data, position + 8)
    crc, packed, size, name_length, extra_length, comment_length = struct.unpack_from("<IIIHHH", data, position + 16)
    (header,) = struct.unpack_from("<I", data, position + 42)
    extra_at = position + 46 + name_length
    after = extra_at + extra_length + comment_length
    if after > stop:
        raise DlcError(f"the directory entry at byte {position} runs past the directory")
    name = bytes(data[position + 46 : extra_at]).decode("utf-8", "replace")
    size, packed, header = _zip64(data[extra_at : extra_at + extra_length], size, packed, header)
    if method or flags & 1 or packed != size:
        raise DlcError(f"record {name!r} is compressed or encrypted; DLC records are stored as they are")
    return _Entry(name, header, size, crc), after


def _zip64(extra: memoryview, size: int, packed: int, header: int) -> tuple[int, int, int]:
    """Replace the fields that hold all ones by those of the ZIP64 extra field, in the order the format fixes."""
    fields = [size, packed, header]
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        if kind == 1:
            body, at = extra[position + 4 : position + 4 + length], 0
            for index, value in enumerate(fields):
                if value == 0xFFFFFFFF:
                    if at + 8 > len(body):
                        raise DlcError("a ZIP64 field is missing from a directory entry")
                    (fields[index],) = struct.unpack_from("<Q", body, at)
                    at += 8
            break
        position += 4 + length
    return fields[0], fields[1], fields[2]


def _data_start(data: memoryview, entry: _Entry) -> int:
    at = entry.header
    if at + 30 > len(data) or bytes(data[at : at + 4]) != _LOCAL:
        raise DlcError(f"record {entry.name!r} has no header at byte {at}, where the directory says")
    flags, _, _, _, _, packed, size, name_length, extra_length = struct.unpack_from("<HHHHIIIHH", data, at + 6)
    start = int(at + 30 + name_length + extra_length)
    if start > len(data):
        raise DlcError(f"the header of record {entry.name!r} runs past the end of the file")
    name = bytes(data[at + 30 : at + 30 + name_length]).decode("utf-8", "replace")
    size, packed, _ = _zip64(data[at + 30 + name_length : start], size, packed, 0)
    streamed = flags & 8  # sizes then follow the data, and the local header holds 0
    if name != entry.name or (not streamed and (size, packed) != (entry.size, entry.size)):
        raise DlcError(f"directory and header disagree on record {entry.name!r} ({entry.size} and {size} bytes)")
    return start
