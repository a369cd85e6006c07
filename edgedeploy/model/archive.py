"""Zip archives from strangers: bounded, whole and unambiguous before anything inside is used."""

from __future__ import annotations

import zipfile
from pathlib import Path

from edgedeploy.errors import InputError

#: An archive may unpack to this many times its size on disk (weights do not compress; code and JSON do) ...
MAX_EXPANSION = 8
#: ... and always to this many bytes.
FREE_BYTES = 64 * 2**20
#: No pickle program or JSON graph of a real model comes near this.
MAX_PROGRAM_BYTES = 256 * 2**20
_CHUNK = 2**20


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a zip archive whose members are few enough, small enough and named once each.

    Raises:
        InputError: where it is truncated, corrupted, expands beyond reason, or names a member twice.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise damaged(
            path, f"the zip directory cannot be read ({error}); the file is truncated or corrupted"
        ) from error
    size = path.stat().st_size
    unpacked = sum(member.file_size for member in archive.infolist())
    names = archive.namelist()
    problem = ""
    if unpacked > max(FREE_BYTES, MAX_EXPANSION * size):
        problem = f"it would unpack from {size:,} to {unpacked:,} bytes"
    elif len(set(names)) != len(names):
        problem = f"it names {max(names, key=names.count)!r} twice"
    elif names and min(member.header_offset for member in archive.infolist()) != 0:
        # The directory belongs to an archive inside this one: its own was cut off, or bytes were put before it.
        problem = "its directory does not cover the whole file; it is truncated, or other bytes stand before it"
    elif any(member.flag_bits & 1 for member in archive.infolist()):
        problem = "its members are encrypted"
    if problem:
        archive.close()
        raise damaged(path, problem)
    return archive


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
