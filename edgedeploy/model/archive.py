"""Zip archives from strangers: bounded, whole and unambiguous before anything inside is used."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path
from typing import IO

from edgedeploy.errors import InputError

#: An archive may unpack to this many times its size on disk (weights do not compress; code and JSON do) ...
MAX_EXPANSION = 8
#: ... and always to this many bytes.
FREE_BYTES = 64 * 2**20
#: No pickle program or JSON graph of a real model comes near this.
MAX_PROGRAM_BYTES = 256 * 2**20
#: A model has some thousand tensors.
_MAX_MEMBERS = 200_000
_ENCRYPTED = 1
_CHUNK = 2**20


def open_archive(path: Path, file: IO[bytes] | None = None, where: str = "") -> zipfile.ZipFile:
    """Open a zip archive that no two readers can read differently.

    Members are stored or deflated, few enough, small enough, and named once each without regard to case: torch's
    reader finds a member whatever its case.

    Args:
        path: the file, for messages, and to open where ``file`` is not given.
        file: an archive within it.
        where: what ``file`` is, for messages.

    Raises:
        InputError: where it is truncated, corrupted, expands beyond reason, or names a member twice.
    """
    inside = f"{where}: " if where else ""
    try:
        archive = zipfile.ZipFile(file or path)
        size = path.stat().st_size if file is None else _size(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, MemoryError, OverflowError) as error:
        raise damaged(
            path, f"{inside}the zip directory cannot be read ({error}); the file is truncated or corrupted"
        ) from error
    problem = _problem(archive, size)
    if problem:
        archive.close()
        raise damaged(path, inside + problem)
    return archive


def _problem(archive: zipfile.ZipFile, size: int) -> str:
    members = archive.infolist()
    names = archive.namelist()
    folded = [name.lower() for name in names]
    unpacked = sum(member.file_size for member in members)
    if len(members) > _MAX_MEMBERS:
        return f"it has {len(members):,} members"
    if unpacked > max(FREE_BYTES, MAX_EXPANSION * size):
        return f"it would unpack from {size:,} to {unpacked:,} bytes"
    if len(set(folded)) != len(folded):
        return f"it names {Counter(folded).most_common(1)[0][0][:200]!r} twice"
    if members and min(member.header_offset for member in members) != 0:
        # The directory belongs to an archive inside this one: its own was cut off, or bytes were put before it.
        return "its directory does not cover the whole file; it is truncated, or other bytes stand before it"
    if any(member.flag_bits & _ENCRYPTED for member in members):
        return "its members are encrypted"
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        return "a member is compressed in a way that torch does not use"
    if any(
        member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size for member in members
    ):
        return "a member that is not compressed has two sizes"
    # zipfile cuts a name at NUL and keeps the original.
    return next(
        (f"member {m.filename[:200]!r} {fault}" for m in members if (fault := _fault_in_name(m.orig_filename))), ""
    )


def _fault_in_name(name: str) -> str:
    if len(name) > 4096:
        return "has an overlong name"
    if not name.isprintable() or "\\" in name or ":" in name.partition("/")[0][:2]:
        return "has a name of unusual letters"
    words = name.split("/")
    return "points out of its folder" if name.startswith("/") or ".." in words or "." in words else ""


def read_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int | None = None) -> bytes:
    """The bytes of one member, its checksum compared.

    Raises:
        InputError: where it is damaged, or larger than ``limit`` bytes.
    """
    if limit is not None and member.file_size > limit:
        raise damaged(path, f"member {member.filename[:200]!r} has {member.file_size:,} bytes")
    try:
        with archive.open(member) as stream:
            content = stream.read(member.file_size + 1)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, MemoryError) as error:
        raise damaged(path, f"member {member.filename[:200]!r} is corrupted ({error})") from error
    except Exception as error:  # zlib.error and struct.error share no base
        raise damaged(path, f"member {member.filename[:200]!r} cannot be unpacked ({error})") from error
    if len(content) != member.file_size:
        raise damaged(path, f"member {member.filename[:200]!r} has another size than its directory says")
    return content


def check_members(path: Path) -> None:
    """Read every member once and compare its checksum, so that damaged weights are not deployed.

    Raises:
        InputError: naming the first member that is damaged.
    """
    with open_archive(path) as archive:
        for member in archive.infolist():
            try:
                with archive.open(member) as stream:
                    while stream.read(_CHUNK):
                        pass
            except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
                raise damaged(path, f"member {member.filename!r} is corrupted ({error})") from error
            except Exception as error:  # zlib.error and lzma errors share no base
                raise damaged(path, f"member {member.filename!r} cannot be unpacked ({error})") from error


def damaged(path: Path, found: str) -> InputError:
    """The error for an archive that cannot be trusted to be what was saved."""
    return InputError(
        f"The archive {str(path)!r} is damaged.",
        found=found,
        remedy="Copy or download it again, or save the model again.",
    )


def _size(file: IO[bytes]) -> int:
    file.seek(0, 2)
    size = file.tell()
    file.seek(0)
    return size
