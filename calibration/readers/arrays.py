"""`ArraysReader`: one array a model input, one row a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgedeploy.calibration.readers.array_file import ArrayFile
from edgedeploy.calibration.readers.reader import (
    Labels,
    Sample,
    check_count,
    check_dtype,
    check_names,
    conform,
    is_labels,
    labelled_output,
    leading_rows,
    samples_in,
)
from edgedeploy.tensors import TensorSpec


class ArraysReader:
    """Samples from arrays on disk.

    Args:
        arrays: by input name, ``labels`` and ``labels:OUTPUT`` optional.
        inputs: the model's inputs.
        source: the file or folder they come from.

    Raises:
        InputError: names, shapes, dtypes or numbers of samples do not fit.
    """

    def __init__(self, arrays: Mapping[str, ArrayFile], inputs: Sequence[TensorSpec], source: str) -> None:
        check_names(list(arrays), inputs, source)
        self._arrays = arrays
        self._inputs = {spec.name: spec for spec in inputs}
        self._own_axis: dict[str, bool] = {}
        counts = {}
        for name, spec in self._inputs.items():
            check_dtype(arrays[name].header.dtype, spec, source)
            counts[name], self._own_axis[name] = samples_in(arrays[name].header.shape, spec, source)
        self._labels = {name: array for name, array in arrays.items() if is_labels(name) and name not in self._inputs}
        for name, array in self._labels.items():
            counts[name] = array.header.shape[0] if array.header.shape else 0
        self._count = check_count(counts, source)
        self._source = source

    @property
    def source(self) -> str:
        """The file or folder."""
        return self._source

    @property
    def labels(self) -> Labels:
        """The ``labels`` and ``labels:OUTPUT`` arrays."""
        return {labelled_output(name): array.all() for name, array in self._labels.items()}

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> Sample:
        """Read one sample's rows."""
        sample = {}
        for name, spec in self._inputs.items():
            if self._own_axis[name]:
                rows = self._arrays[name].rows(index, 1)[0]
            else:
                count = leading_rows(spec)
                rows = self._arrays[name].rows(index * count, count)
            sample[name] = conform(rows, spec, f"{self._source}, {self.describe(index)}")
        return sample

    def describe(self, index: int) -> str:
        """Name the row."""
        return f"row {index}"
