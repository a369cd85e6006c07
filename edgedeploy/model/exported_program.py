"""Reading a ``.pt2`` archive (``torch.export.save``), which can run code unless all of it is checked first.

Three doors are shut before torch opens the file: pickles (``torch.export.load`` falls back to unrestricted
unpickling), the compiled code of AOTInductor, and the graph's own JSON (see `program_text`).
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.errors import InputError
from edgedeploy.model.archive import MAX_PROGRAM_BYTES, damaged, open_archive
from edgedeploy.model.pickles import globals_of, refuse_unsafe
from edgedeploy.model.program_text import check_program_text

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def read_exported_program(path: Path, allowed: frozenset[str] = frozenset(), unsafe: bool = False) -> ExportedProgram:
    """Check every part of the archive that could run code, then load it.

    Args:
        path: the archive, whatever its suffix.
        allowed: globals that its pickles may name beyond torch's safe ones.
        unsafe: the user vouches for the file (``--unsafe-load``): skip the checks.

    Raises:
        InputError: where a part would run code, or the archive cannot be read.
    """
    import torch

    with path.open("rb") as file:
        if not unsafe:
            _check(path, file, allowed)
            file.seek(0)
        try:
            return torch.export.load(file)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"{str(path)!r} is a .pt2 archive that torch {torch.__version__} cannot load.",
                found=f"{type(error).__name__}: {_first_line(error)}",
                remedy="Save it again with torch.export.save under a torch version that is supported here.",
            ) from error


def _check(path: Path, file: io.BufferedReader, allowed: frozenset[str]) -> None:
    import torch

    with open_archive(path) as archive:
        roots = {name.partition("/")[0] for name in archive.namelist()}
    if len(roots) != 1:
        raise damaged(path, f"a .pt2 archive has one top folder; this one has {', '.join(sorted(roots)[:5])}")
    try:
        # torch's own reader: what is checked must be what torch will read.
        reader = torch._C.PyTorchFileReader(file)
    except RuntimeError as error:
        raise damaged(path, _first_line(error)) from error
    records = list(reader.get_all_records())
    for name in records:
        if ".." in name.split("/"):
            raise damaged(path, f"member {name!r} points out of its folder")
        if name.startswith("data/aotinductor/"):
            raise InputError(
                f"{str(path)!r} carries compiled code, which would run on loading; nothing was loaded.",
                found=name,
                remedy="Save the ExportedProgram alone (torch.export.save); if you trust the file, use --unsafe-load.",
            )
    raw = _raw_payloads(path, reader, records)
    found: dict[str, frozenset[str]] = {}
    for name in records:
        if name in raw:
            continue
        content: bytes = reader.get_record(name)
        if name.startswith("models/"):
            check_program_text(path, name, content)
            continue
        for place, program in _pickles(name, content):
            try:
                found[place] = globals_of(program)
            except (ValueError, EOFError, IndexError) as error:
                raise damaged(path, f"the pickle {place!r} cannot be read ({error})") from error
    refuse_unsafe(path, found, allowed)


def _raw_payloads(path: Path, reader: Any, records: list[str]) -> frozenset[str]:
    """Members that torch reads as plain tensor bytes and never unpickles."""
    raw: set[str] = set()
    pickled: set[str] = set()
    for name in records:
        if not name.endswith("_config.json"):
            continue
        try:
            entries = json.loads(reader.get_record(name))["config"].values()
            for entry in entries:
                (pickled if entry["use_pickle"] else raw).add(f"{name.rpartition('/')[0]}/{entry['path_name']}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(path, f"the table {name!r} cannot be read ({error!r})") from error
    return frozenset(raw - pickled)


def _pickles(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """Every pickle program in a member: the member itself, or what a zip archive in it holds."""
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as inner:
            for member in inner.infolist():
                if member.file_size > MAX_PROGRAM_BYTES:
                    continue
                with inner.open(member) as stream:
                    head = stream.read(1)
                    if member.filename.endswith(".pkl") or (head == b"\x80" and "/data/" not in member.filename):
                        yield f"{name}/{member.filename}", head + stream.read()
    elif content.startswith(b"\x80") or name.startswith(("data/sample_inputs/", "data/constants/opaque_obj")):
        yield name, content


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
