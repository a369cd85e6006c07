"""Calibration tables on disk: one .npz without pickles, its key and a checksum inside."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedeploy.calibration.histogram import Histogram
from edgedeploy.calibration.options import CalibrationOptions
from edgedeploy.calibration.statistics import ChannelStatistics, TensorStatistics
from edgedeploy.calibration.table import CalibrationTable, Provenance
from edgedeploy.errors import InputError

#: Raised whenever the meaning of a table's bytes changes; older tables are then stale.
FORMAT = "1"

_CHANNEL_VECTORS = ("minimum", "maximum", "mean", "second_moment")
_SCALARS = ("name", "count", "extreme", "minimum", "maximum", "mean", "second_moment")


def versions() -> dict[str, str]:
    """Versions that a table depends on: other kernels may round differently."""
    return {"edgedeploy": version("edgedeploy"), "onnxruntime": version("onnxruntime"), "table": FORMAT}


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
    arrays: dict[str, Any] = dict(_arrays(table))
    header = {
        "key": table_key(table.provenance),
        "provenance": asdict(table.provenance),
        "aliases": dict(table.aliases),
        "clipped": {name: list(passed) for name, passed in table.clipped.items()},
        "tensors": [_scalars(statistics) for statistics in table.tensors.values()],
    }
    header["checksum"] = _checksum(header, arrays)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, header=np.frombuffer(_canonical(header), np.uint8), **arrays)
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
    arrays, header = _read(path)
    checksum = header.pop("checksum", "")
    if checksum != _checksum(header, arrays):
        raise InputError(
            f"The calibration table {path} was edited or damaged.",
            found="its checksum does not match its content",
            remedy="Calibrate again; to narrow a tensor's range, choose another method instead.",
        )
    given = header["provenance"]
    provenance = Provenance(**{**given, "options": CalibrationOptions(**given["options"])})
    if expected is not None:
        _refuse_stale(path, provenance, expected)
    tensors = {scalars["name"]: _statistics(index, scalars, arrays) for index, scalars in enumerate(header["tensors"])}
    clipped = {name: tuple(passed) for name, passed in header["clipped"].items()}
    return CalibrationTable(provenance, tensors, header["aliases"], clipped)


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


def _read(path: Path) -> tuple[dict[str, NDArray[np.generic]], dict[str, Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(arrays.pop("header").tobytes())
        if not isinstance(header, dict) or "provenance" not in header:
            raise KeyError("provenance")
    except FileNotFoundError:
        raise InputError(f"There is no calibration table {path}.", remedy="Make one with: deploy calibrate.") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is not a calibration table, or it is damaged.", found=str(error), remedy="Calibrate again."
        ) from None
    return arrays, header


def _arrays(table: CalibrationTable) -> Iterator[tuple[str, NDArray[np.generic]]]:
    for index, statistics in enumerate(table.tensors.values()):
        for fold, histogram in enumerate(statistics.folds):
            yield f"{index}.{fold}.keys", histogram.keys
            yield f"{index}.{fold}.counts", histogram.counts
        if statistics.channels is not None:
            yield f"{index}.channels", np.stack([getattr(statistics.channels, name) for name in _CHANNEL_VECTORS])


def _scalars(statistics: TensorStatistics) -> dict[str, Any]:
    scalars = {name: getattr(statistics, name) for name in _SCALARS}
    scalars["zeros"] = [histogram.zeros for histogram in statistics.folds]
    return {**scalars, "axis": statistics.channels.axis if statistics.channels is not None else None}


def _statistics(index: int, scalars: dict[str, Any], arrays: Mapping[str, Any]) -> TensorStatistics:
    folds = tuple(
        Histogram(
            arrays[f"{index}.{fold}.keys"],
            arrays[f"{index}.{fold}.counts"],
            zeros,
            scalars["minimum"],
            scalars["maximum"],
        )
        for fold, zeros in enumerate(scalars["zeros"])
    )
    channels = None
    if scalars["axis"] is not None:
        channels = ChannelStatistics(scalars["axis"], *arrays[f"{index}.channels"])
    values: dict[str, Any] = {name: scalars[name] for name in _SCALARS}
    return TensorStatistics(**values, folds=folds, channels=channels)


def _checksum(header: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]) -> str:
    digest = hashlib.sha256(_canonical(header))
    for name in sorted(arrays):
        digest.update(f"{name}\0{arrays[name].dtype.str}\0{arrays[name].shape}\0".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
