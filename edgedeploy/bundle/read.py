"""Reading the records of a bundle that a stranger may have made: nothing in them is believed before it is checked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from edgedeploy.bundle.journal import problems
from edgedeploy.bundle.manifest import ArtefactRecord, Manifest, Measurements, PortRecord
from edgedeploy.bundle.tree import ARTEFACT, MANIFEST, MEASUREMENTS, REPORT, bad_entries, bad_names
from edgedeploy.errors import InputError
from edgedeploy.plain_text import printable
from edgedeploy.untrusted import read_bytes, read_json, shown

#: The manifest of a model of 100 000 files takes 10 MB.
LIMIT = 64 << 20

_CANDIDATE = re.compile(r"[\w.+-]{1,100}", re.ASCII)
_DTYPES = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)} | {
    "float16", "float32", "float64", "bfloat16", "bool", "int4", "uint4",
}  # fmt: skip
_MAX_ELEMENTS = 2**31

#: Keys of ``artefact.details`` under which a backend names a file or folder of the artefact.
_PATHS = ("emulation", "context_model")

T = TypeVar("T", bound=BaseModel)


def read_bundle(folder: Path) -> tuple[Manifest, Measurements]:
    """Read a bundle's two records.

    Raises:
        InputError: not a bundle, one of another format, or one whose records contradict themselves.
    """
    manifest = _read(folder, MANIFEST, Manifest)
    measurements = _read(folder, MEASUREMENTS, Measurements)
    wrong = [*bad_names(manifest.files, manifest.executables), *_bad_artefact(manifest)]
    if wrong:
        raise InputError(f"{shown(folder / MANIFEST)} is not what edgedeploy writes.", found=_listed(wrong))
    return manifest, measurements


def check_bundle(folder: Path, manifest: Manifest, measurements: Measurements) -> str:
    """Compare every file, folder, mode and record with what was built; return a note, or "".

    Raises:
        InputError: something was changed, added or removed; all of it is named.
    """
    found = bad_entries(folder, manifest.files, manifest.executables)
    report = read_bytes(folder / REPORT, limit=LIMIT) if (folder / REPORT).is_file() else b""
    wrong, note = problems(
        manifest,
        read_bytes(folder / MANIFEST, limit=LIMIT),
        measurements,
        read_bytes(folder / MEASUREMENTS, limit=LIMIT),
        report,
    )
    if found or wrong:
        raise InputError(
            f"{shown(folder)} is not what was built.",
            found=_listed([*found, *wrong]),
            remedy="Take the bundle from its source again.",
        )
    return note


def _read(folder: Path, name: str, form: type[T]) -> T:
    try:
        found: Any = read_json(folder / name, limit=LIMIT)
        return form.model_validate(found)
    except (InputError, ValidationError, ValueError, RecursionError) as error:
        why = error.found or error.what if isinstance(error, InputError) else str(error)
        raise InputError(
            f"{shown(folder)} is not a bundle of this version.",
            found=f"{name}: {' '.join(printable(why, limit=300).split())}",
            remedy="Name the folder of one target, such as out/host, made by this version of edgedeploy.",
        ) from None


def _listed(wrong: Sequence[str]) -> str:
    shown_first = "; ".join(wrong[:20])
    return shown_first if len(wrong) <= 20 else f"{shown_first}; and {len(wrong) - 20} more"


def _bad_artefact(manifest: Manifest) -> Iterator[str]:
    record = manifest.artefact
    if not _CANDIDATE.fullmatch(record.candidate):
        yield f"{printable(record.candidate, limit=100)!r} is no name of a candidate"
    if not _is_part(record.main, manifest):
        yield f"artefact.main {printable(record.main, limit=200)!r} is nothing in the artefact"
    for key in _PATHS:
        path = record.details.get(key) or ""
        if not isinstance(path, str) or (path and not _is_part(f"{ARTEFACT}/{path}", manifest)):
            yield f"artefact.details.{key} {printable(path, limit=200)!r} is nothing in the artefact"
    yield from _bad_ports(record)


def _is_part(name: str, manifest: Manifest) -> bool:
    """A file of the artefact, or a folder that holds some (a package)."""
    if name in manifest.files:
        return name.startswith(f"{ARTEFACT}/")
    folders = {parent.as_posix() for file in manifest.files for parent in PurePosixPath(file).parents}
    return name in folders and name.startswith(f"{ARTEFACT}/")


def _bad_ports(record: ArtefactRecord) -> Iterator[str]:
    for what, ports in (("input", record.inputs), ("output", record.outputs)):
        if not ports:
            yield f"the artefact has no {what}"
        names = [port.source_name for port in ports]
        if len(set(names)) < len(names) or not all(names):
            yield f"two {what}s have one name, or one has none"
        for port in ports:
            if why := _bad_port(port):
                yield f"{what} {printable(port.source_name, limit=100)!r}: {why}"


def _bad_port(port: PortRecord) -> str:
    sizes = [size if isinstance(size, int) else 1 for size in port.shape]
    if port.dtype not in _DTYPES:
        return f"unknown dtype {printable(port.dtype, limit=50)!r}"
    if len(sizes) > 32 or min(sizes, default=1) < 1 or math.prod(sizes) > _MAX_ELEMENTS:
        return "a shape that no tensor has"
    if port.to_layout and sorted(port.to_layout) != list(range(len(sizes))):
        return "to_layout is no order of its axes"
    if port.scale is not None and not (math.isfinite(port.scale) and port.scale > 0):
        return "a scale that is not above 0"
    return ""
