"""Golden vectors: a few inputs with the artefact's own outputs and the FP32 reference's."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.calibration.dataset import Dataset

INPUTS, OUTPUTS, REFERENCE = "inputs.npz", "outputs.npz", "reference.npz"
MAX_VECTORS = 8
MAX_BYTES = 4_000_000


def write_golden(
    folder: Path, samples: Dataset, outputs: Mapping[str, NDArray[Any]], reference: Mapping[str, NDArray[Any]]
) -> int:
    """Write up to 8 vectors, fewer where they are large (4 MB in all, one at least); return how many."""
    folder.mkdir()
    available = min([len(value) for value in outputs.values()] or [0], default=0)
    chosen: list[dict[str, NDArray[Any]]] = []
    for sample in samples.take(min(MAX_VECTORS, available)):
        size = sum(value.nbytes for value in sample.values()) * (len(chosen) + 1)
        if chosen and size > MAX_BYTES:
            break
        chosen.append(sample)
    count = len(chosen)
    if count:
        names = chosen[0]
        inputs = {name: np.concatenate([sample[name] for sample in chosen]) for name in names}
        for file, arrays in ((INPUTS, inputs), (OUTPUTS, outputs), (REFERENCE, reference)):
            _write_npz(folder / file, {name: np.asarray(value[:count]) for name, value in arrays.items()})
    return count


def read_golden(folder: Path) -> tuple[Dataset, dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Read inputs, artefact outputs and reference outputs back.

    Raises:
        InputError: the bundle has no golden vectors, or they can't be read.
    """
    try:
        loaded = []
        for name in (INPUTS, OUTPUTS, REFERENCE):
            with np.load(folder / name, allow_pickle=False) as archive:
                loaded.append({key: archive[key] for key in archive.files})
    except (OSError, ValueError) as error:
        raise InputError(f"The golden vectors in {folder} can't be read.", found=str(error)) from None
    return ArrayDataset(loaded[0]), loaded[1], loaded[2]


def _write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write what `numpy.load` reads; unlike `numpy.savez`, any tensor name will do ("file" included)."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(  # type: ignore[no-untyped-call]
                    member, np.ascontiguousarray(value), allow_pickle=False
                )
