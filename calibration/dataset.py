"""`Dataset`: samples that are read one at a time, hashed by content, and split by that hash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgedeploy.calibration.readers.reader import LABELS, Labels, Reader, Sample, check_count, no_samples
from edgedeploy.errors import InputError
from edgedeploy.progress import NoProgress, Progress
from edgedeploy.tensors import TensorSpec
from edgedeploy.untrusted import check_regular, entries, inside, shown

if TYPE_CHECKING:
    from edgedeploy.calibration.preprocessing import Preprocessing


@dataclass(frozen=True)
class Dataset:
    """Samples of a model, in a fixed order; iteration reads them one by one and keeps none.

    Each sample is a dict from input name to an array in the input's shape (batch axis kept, its static size or 1)
    and dtype. Every array has been checked by the reader; `check` also looks for NaN and infinities.

    Attributes:
        reader: where the samples come from.
        indices: which of the reader's samples these are, in order.
    """

    reader: Reader
    indices: tuple[int, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Sample]:
        return (self.reader.read(index) for index in self.indices)

    def __getitem__(self, position: int) -> Sample:
        return self.reader.read(self.indices[position])

    @property
    def source(self) -> str:
        """What a message calls the data: a path, or ``module:callable``."""
        return self.reader.source

    @property
    def labels(self) -> NDArray[np.generic] | None:
        """Labels that name no output, in the samples' order, shape (samples, ...), or ``None``."""
        return self.labels_by_output.get("")

    @property
    def labels_by_output(self) -> Labels:
        """Labels by output name ("" for those that name none), in the samples' order, each of shape (samples, ...)."""
        return {output: labels[list(self.indices)] for output, labels in self.reader.labels.items()}

    def take(self, count: int) -> Dataset:
        """Return the first ``count`` samples (all, where there are fewer)."""
        return self.select(range(min(count, len(self))))

    def select(self, positions: Sequence[int]) -> Dataset:
        """Return the samples at these positions, in this order."""
        chosen = Dataset(self.reader, tuple(self.indices[position] for position in positions))
        if "hashes" in self.__dict__:
            chosen.__dict__["hashes"] = tuple(self.hashes[position] for position in positions)
        return chosen

    def batches(self, count: int) -> Iterator[Sample]:
        """Yield ``count`` samples at a time, joined on the batch axis; the last batch may be smaller."""
        for start in range(0, len(self), count):
            chunk = [self.reader.read(index) for index in self.indices[start : start + count]]
            yield {name: np.concatenate([sample[name] for sample in chunk]) for name in chunk[0]}

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """SHA-256 of each sample's inputs: names, dtypes, shapes and bytes. Labels do not enter.

        The first access reads every sample once and refuses NaN and infinities (`InputError`).
        """
        return self._scan(NoProgress())

    @cached_property
    def digest(self) -> str:
        """Hash of the multiset of sample hashes: the same for any order of the same samples."""
        return hashlib.sha256("".join(sorted(self.hashes)).encode()).hexdigest()

    def check(self, progress: Progress) -> None:
        """Read every sample once, unless that was done before, and refuse NaN and infinities (`InputError`)."""
        if "hashes" not in self.__dict__:
            self.__dict__["hashes"] = self._scan(progress)

    def _scan(self, progress: Progress) -> tuple[str, ...]:
        hashes = []
        for index in progress.track(self.indices, what="Checking data", total=len(self)):
            sample = self.reader.read(index)
            for name, value in sample.items():
                if value.dtype.kind == "f" and not np.isfinite(value).all():
                    count = int((~np.isfinite(value)).sum())
                    raise InputError(
                        f"{self.source}: input {name!r} has a value that is not a number.",
                        found=f"{count} NaN or infinite values in {self.reader.describe(index)}",
                        remedy="Remove the sample or mend its preprocessing.",
                    )
            hashes.append(sample_hash(sample))
        return tuple(hashes)


class ArrayDataset(Dataset):
    """Samples that are already in memory.

    Args:
        arrays: by input name, each of shape (samples, ...); each sample keeps a batch axis of size 1.
        labels: shape (samples, ...).
        source: what a message calls them.
    """

    def __init__(
        self,
        arrays: Mapping[str, NDArray[np.generic]],
        labels: NDArray[np.generic] | None = None,
        source: str = "arrays in memory",
    ) -> None:
        reader = _Arrays(dict(arrays), {} if labels is None else {"": labels}, source)
        super().__init__(reader, tuple(range(len(reader))))


@dataclass(frozen=True)
class _Arrays:
    arrays: dict[str, NDArray[np.generic]]
    labels: Labels
    source: str

    def __post_init__(self) -> None:
        counts = {name: len(array) for name, array in self.arrays.items()}
        counts |= {f"{LABELS}:{output}": len(labels) for output, labels in self.labels.items()}
        check_count(counts, self.source)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def read(self, index: int) -> Sample:
        return {name: np.ascontiguousarray(array[index : index + 1]) for name, array in self.arrays.items()}

    def describe(self, index: int) -> str:
        return f"row {index}"


def sample_hash(sample: Mapping[str, NDArray[np.generic]]) -> str:
    """SHA-256 over a sample's names, dtypes, shapes and bytes, names in sorted order."""
    digest = hashlib.sha256()
    for name in sorted(sample):
        value = np.ascontiguousarray(sample[name])
        digest.update(f"{name}\0{value.dtype.str}\0{value.shape}\0".encode())
        digest.update(value.data)
    return digest.hexdigest()


def split(dataset: Dataset, fraction: float = 0.2) -> tuple[Dataset, Dataset]:
    """Hold back about ``fraction`` of the samples, chosen by content hash: (the rest, held back).

    The choice does not depend on the samples' order, and equal samples always fall on the same side, so that
    nothing held back was seen on the other side. Both keep the order of ``dataset``.

    Raises:
        InputError: fewer than two different samples, so that one side would be empty.
    """
    distinct = sorted(set(dataset.hashes))
    if len(distinct) < 2:
        raise InputError(
            f"{dataset.source} is too small to hold samples back.",
            found=f"{len(distinct)} different sample(s)",
            remedy="Give at least two different samples, or evaluation data of its own (--eval).",
        )
    count = min(max(1, round(fraction * len(distinct))), len(distinct) - 1)
    held = set(distinct[:count])
    rest = [position for position, value in enumerate(dataset.hashes) if value not in held]
    kept = [position for position, value in enumerate(dataset.hashes) if value in held]
    return dataset.select(rest), dataset.select(kept)


def open_dataset(
    source: str | Path, inputs: Sequence[TensorSpec], preprocessing: Preprocessing | None = None
) -> Dataset:
    """Open calibration or evaluation data and check its names, shapes and dtypes against the model's inputs.

    Args:
        source: an .npz file, a folder of .npy files, a folder of images (needs ``preprocessing``), or
            ``package.module:callable`` yielding dicts. A callable is code: pass one only where the user named it.
        inputs: the model's inputs.
        preprocessing: how an image becomes the model's input.

    Raises:
        InputError: the source is missing, of no known kind, or does not fit the model.
    """
    path = Path(source)
    reader: Reader
    kind = _kind(path)
    if kind == "folder":
        from edgedeploy.calibration.readers.image_folder import IMAGE_SUFFIXES, ImageFolderReader

        suffixes = {Path(entry.name).suffix.lower() for entry in entries(path)}
        if suffixes & IMAGE_SUFFIXES:
            reader = ImageFolderReader(path, inputs, preprocessing)
        elif ".npy" in suffixes:
            from edgedeploy.calibration.readers.npy_folder import open_npy_folder

            reader = open_npy_folder(path, inputs)
        else:
            raise no_samples(shown(path))
    elif kind == "file":
        from edgedeploy.calibration.readers.npz import open_npz

        check_regular(path)
        reader = open_npz(path, inputs)
    elif isinstance(source, str) and ":" in source:
        from edgedeploy.calibration.readers.generator import open_callable

        reader = open_callable(source, inputs)
    else:
        raise _nowhere(path)
    return Dataset(reader, tuple(range(len(reader))))


def check_source(source: str | Path) -> None:
    """Refuse data that are not there, before anything is loaded; what is in them is seen by `open_dataset`.

    Raises:
        InputError: neither a file nor a folder, nor (as text) ``package.module:callable``.
    """
    if not _kind(Path(source)) and not (isinstance(source, str) and ":" in source):
        raise _nowhere(Path(source))


def _nowhere(path: Path) -> InputError:
    return InputError(
        f"There is no data at {shown(path)}.",
        remedy="Give an .npz file, a folder of .npy files or images, or package.module:callable.",
    )


def _kind(path: Path) -> str:
    """Say "folder", "file" (regular or not), or "" where nothing is there."""
    try:
        return "folder" if path.is_dir() else "file" if path.exists() else ""
    except (OSError, ValueError):
        return ""


def sidecar(model: Path, purpose: str) -> Path | None:
    """Find data beside a model: ``model.calib.npz`` or ``model.eval.npz`` for ``purpose`` "calib" or "eval".

    Raises:
        InputError: a file of that name that is a link out of the model's folder, or no regular file.
    """
    path = model.with_name(f"{model.stem}.{purpose}.npz")
    if not os.path.lexists(path):
        return None
    try:
        found = inside(model.parent, path.name, f"Data found beside the model ({path.name})")
        check_regular(found)
    except InputError as error:
        error.remedy = f"Name it, if you mean it: --{'calibration' if purpose == 'calib' else 'eval'} {shown(path)}"
        raise
    return path
