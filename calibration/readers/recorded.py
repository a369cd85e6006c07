"""What a user's code yields, written down once, so that another process can read it without running the code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgedeploy.calibration.readers.generator import Source, items_of
from edgedeploy.errors import InputError


@dataclass(frozen=True)
class Recorded:
    """Yields what was written down, item by item; stands for the callable that yielded it.

    Attributes:
        folder: one .npz an item, in order.
        name: what messages call it.
    """

    folder: Path
    name: str

    def __call__(self) -> Iterator[Mapping[str, Any]]:
        """Read the items back."""
        for path in sorted(self.folder.iterdir()):
            with np.load(path, allow_pickle=False) as item:
                yield {str(key)[1:]: item[key] for key in item.files}


def record(source: Source, folder: Path, name: str) -> Recorded:
    """Run a callable once and write down what it yields.

    Args:
        source: takes nothing and returns an iterable of dicts from input name to array.
        folder: made here.

    Raises:
        InputError: it fails, never ends, or yields anything but dicts of arrays.
    """
    folder.mkdir()
    for number, item in enumerate(items_of(source, name)):
        arrays = {f"_{key}": np.asarray(value) for key, value in item.items()}  # "file" is an argument of savez
        if any(array.dtype == object for array in arrays.values()):
            raise InputError(f"{name} must yield arrays of numbers.", found=f"item {number} holds objects")
        np.savez(folder / f"{number:06d}.npz", **arrays)  # type: ignore[arg-type]
    return Recorded(folder, name)
