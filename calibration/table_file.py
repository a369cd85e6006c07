"""Calibration tables on disk: one .npz without pickles, its key and a checksum inside.

Members: ``header``, JSON with the provenance and what lies where, and the arrays of `table_arrays`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from edgedeploy.calibration.options import CalibrationOptions
from edgedeploy.calibration.table import CalibrationTable, Provenance
from edgedeploy.calibration.table_arrays import ARRAYS, packed, unpacked
from edgedeploy.errors import InputError
from edgedeploy.untrusted import check_regular

#: Raised whenever the meaning of a table's bytes changes; older tables are then refused.
FORMAT = "2"

#: Unpacked bytes of a table; those of the largest models tried take 0.2 GB.
MOST_BYTES = 4 << 30


def versions() -> dict[str, str]:
    """Versions that a table depends on: other kernels may round differently."""
    return {"edgedeploy": _version("edgedeploy"), "onnxruntime": _version("onnxruntime"), "table": FORMAT}


@cache
def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def table_key(provenance: Provenance) -> str:
    """SHA-256 of everything that decides a table's statistics: graph, data, options and versions.

    The method and the percentile only change how ranges are read from the statistics, so they are left out.
    """
    return hashlib.sha256(_canonical(_made_from(provenance))).hexdigest()


def save_table(table: CalibrationTable, path: Path) -> None:
    """Write a table; the same table gives the same bytes. The file appears complete or not at all.

    Raises:
        InputError: the folder cannot be written.
    """
    described, arrays = packed(table.tensors.values())
    header = {
        "format": FORMAT,
        "key": table_key(table.provenance),
        "provenance": asdict(table.provenance),
        "aliases": dict(table.aliases),
        "clipped": {name: list(passed) for name, passed in table.clipped.items()},
        "tensors": described,
    }
    header["checksum"] = _checksum(header, arrays)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            members: dict[str, Any] = {"header": np.frombuffer(_canonical(header), np.uint8), **arrays}
            np.savez_compressed(file, **members)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise InputError(f"The calibration table {path} cannot be written.", found=str(error)) from None


def load_table(path: Path, expected: Provenance | None = None) -> CalibrationTable:
    """Read a table and refuse one that was edited or that was made from something else.

    Args:
        path: a file written by `save_table`.
        expected: what the table must have been made from; ``None`` takes any.

    Raises:
        InputError: no table, damaged, edited, or stale.
    """
    header, arrays = _read(path)
    checksum = header.pop("checksum", "")
    if checksum != _checksum(header, arrays):
        raise InputError(
            f"The calibration table {path} was edited or damaged.",
            found="its checksum does not match its content",
            remedy="Calibrate again; to narrow a tensor's range, choose another method instead.",
        )
    try:
        table = _table(header, arrays)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, InputError) as error:
        raise _damaged(path, error) from None
    if expected is not None:
        _refuse_stale(path, table.provenance, expected)
    return table


def _refuse_stale(path: Path, found: Provenance, expected: Provenance) -> None:
    if table_key(found) == table_key(expected):
        return
    wanted = _made_from(expected)
    changed = [
        f"{name} {str(value)[:40]}, now {str(wanted[name])[:40]}"
        for name, value in _made_from(found).items()
        if value != wanted[name]
    ]
    raise InputError(
        f"The calibration table {path} is stale.",
        found="; ".join(changed),
        remedy="Calibrate again, or use the model, data, options and version it was made from.",
    )


def _made_from(provenance: Provenance) -> dict[str, Any]:
    return {
        "model": provenance.graph_sha256,
        "data": provenance.data_digest,
        "samples": provenance.samples,
        "options": provenance.options.collected,
        "versions": dict(provenance.versions),
        "data_free": provenance.data_free,
    }


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The header and, once it is of this format, the arrays that it speaks of."""
    if os.path.lexists(path):
        check_regular(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            _refuse_bomb(archive, path)
            header = json.loads(archive["header"].tobytes())
            if not isinstance(header, dict) or "provenance" not in header:
                raise KeyError("provenance")
            if header.get("format") != FORMAT:
                raise InputError(
                    f"The calibration table {path} was written by another version of edgedeploy.",
                    found=f"table format {header.get('format', '1')!s:.10}, this version reads {FORMAT}",
                    remedy="Calibrate again.",
                )
            return header, {name: archive[name] for name in ARRAYS}
    except FileNotFoundError:
        raise InputError(f"There is no calibration table {path}.", remedy="Make one with: deploy calibrate.") from None
    except InputError:
        raise
    except Exception as error:  # numpy and zipfile raise whatever a damaged file makes them
        raise _damaged(path, error) from None


def _refuse_bomb(archive: NpzFile, path: Path) -> None:
    """A table holds histograms: it packs well, but does not swell to what no memory takes."""
    members = archive.zip.infolist() if archive.zip else ()
    if sum(info.file_size for info in members) > MOST_BYTES:
        raise InputError(f"{path} is too large for a calibration table.", found=f"more than {MOST_BYTES >> 30} GiB")


def _damaged(path: Path, error: BaseException) -> InputError:
    return InputError(
        f"{path} is not a calibration table, or it is damaged.", found=str(error), remedy="Calibrate again."
    )


def _table(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> CalibrationTable:
    given = header["provenance"]
    provenance = Provenance(**{**given, "options": CalibrationOptions(**given["options"])})
    _made_from(provenance)
    clipped = {name: tuple(passed) for name, passed in header["clipped"].items()}
    waiting = dict(clipped)
    while ready := [name for name, passed in waiting.items() if not waiting.keys() & set(passed)]:
        waiting = {name: passed for name, passed in waiting.items() if name not in ready}
    if waiting:
        raise ValueError(f"the range of {next(iter(waiting))!r} is said to be its own")
    return CalibrationTable(provenance, unpacked(header["tensors"], arrays), dict(header["aliases"]), clipped)


def _checksum(header: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]) -> str:
    digest = hashlib.sha256(_canonical(header))
    for name in sorted(arrays):
        digest.update(f"{name}\0{arrays[name].dtype.str}\0{arrays[name].shape}\0".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
