"""Samples from a folder of .npy files: one file an input, or, for a model of one input, one file a sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgedeploy.calibration.readers.array_file import ArrayFile, open_npy
from edgedeploy.calibration.readers.arrays import ArraysReader
from edgedeploy.calibration.readers.reader import LABELS, Labels, Reader, Sample, check_count, check_names, conform
from edgedeploy.tensors import TensorSpec


def open_npy_folder(folder: Path, inputs: Sequence[TensorSpec]) -> Reader:
    """Open ``INPUT.npy`` files of shape (samples, ...), or one .npy a sample for a model of one input.

    ``labels.npy`` may lie beside either; for one file a sample it follows the file names' order.

    Raises:
        InputError: a file is damaged, holds objects, or does not fit the model.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.npy"))}
    names = {spec.name for spec in inputs}
    if len(inputs) == 1 and not names & set(paths):
        labels = paths.pop(LABELS, None)
        return _FilesReader(list(paths.values()), inputs[0], labels, str(folder))
    check_names(list(paths), inputs, str(folder))
    return ArraysReader({name: open_npy(path) for name, path in paths.items()}, inputs, str(folder))


class _FilesReader:
    """One file a sample; every file's header is checked before the first is read."""

    def __init__(self, paths: list[Path], spec: TensorSpec, labels: Path | None, source: str) -> None:
        self._paths, self._spec, self._source = paths, spec, source
        self._labels: ArrayFile | None = open_npy(labels) if labels else None
        for path in paths:
            conform(_stand_in(open_npy(path)), spec, str(path))
        counts = {"files": len(paths)}
        if self._labels is not None:
            counts[LABELS] = self._labels.header.shape[0] if self._labels.header.shape else 0
        check_count(counts, source)

    @property
    def source(self) -> str:
        return self._source

    @property
    def labels(self) -> Labels:
        return {} if self._labels is None else {"": self._labels.all()}

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> Sample:
        path = self._paths[index]
        return {self._spec.name: conform(open_npy(path).all(), self._spec, str(path))}

    def describe(self, index: int) -> str:
        return self._paths[index].name


def _stand_in(array: ArrayFile) -> NDArray[np.generic]:
    """Return an array of the file's type and shape that occupies a single element."""
    return np.broadcast_to(np.zeros((), array.header.dtype), array.header.shape)
