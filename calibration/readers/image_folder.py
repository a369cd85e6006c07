"""Samples from a folder of images, prepared one at a time as the model expects them."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgedeploy.calibration.preprocessing import Preprocessing
from edgedeploy.calibration.readers.reader import Labels, Sample, check_dtype, conform, no_samples
from edgedeploy.errors import InputError
from edgedeploy.tensors import TensorSpec
from edgedeploy.untrusted import check_regular, read_text

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif"})
LABEL_FILE = "labels.csv"

#: Pillow's names of these formats: it goes by the content, and would call Ghostscript for PostScript in a .png.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
#: Bytes of labels.csv: 2 million lines.
_MOST_LABEL_BYTES = 256 << 20


class ImageFolderReader:
    """Every image under a folder, in the order of their paths.

    Labels come from ``labels.csv`` in the folder: file name and class index, one image a line, a heading allowed.

    Raises:
        InputError: no preprocessing, a model with other than one input, or labels that do not cover the images.
    """

    def __init__(self, folder: Path, inputs: Sequence[TensorSpec], preprocessing: Preprocessing | None) -> None:
        if len(inputs) != 1:
            raise InputError(
                f"A folder of images feeds one input; this model has {len(inputs)}.",
                found=", ".join(spec.name for spec in inputs),
                remedy="Save the inputs as arrays in an .npz file.",
            )
        if preprocessing is None:
            raise InputError(
                f"{folder} holds images, and how the model wants them prepared is not known.",
                remedy=f"Describe it in deploy.toml under [preprocessing.{inputs[0].name}]: resize, crop, mean, std.",
            )
        check_dtype(np.dtype(np.float32), inputs[0], str(folder))
        self._folder, self._spec, self._preprocessing = folder, inputs[0], preprocessing
        self._paths = sorted(
            path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
        )
        if not self._paths:
            raise no_samples(str(folder))
        self._labels = _labels(folder, self._paths)

    @property
    def source(self) -> str:
        """The folder."""
        return str(self._folder)

    @property
    def labels(self) -> Labels:
        """Class indices, int64, where ``labels.csv`` is there."""
        return {} if self._labels is None else {"": self._labels}

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> Sample:
        """Decode and prepare one image; `InputError` names it where it is broken or of the wrong size."""
        path = self._paths[index]
        check_regular(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(path, formats=_FORMATS) as image:
                    value = self._preprocessing.apply(image)
        except Exception as error:  # Pillow's decoders raise whatever a damaged file makes them
            found = f"{type(error).__name__}: {error}"[:300]
            raise InputError(f"The image {path} is broken.", found=found, remedy="Replace or remove it.") from None
        return {self._spec.name: conform(value, self._spec, str(path))}

    def describe(self, index: int) -> str:
        """Name the image."""
        return str(self._paths[index].relative_to(self._folder))


def _labels(folder: Path, paths: Sequence[Path]) -> NDArray[np.int64] | None:
    table = folder / LABEL_FILE
    if not table.is_file():
        return None
    known = _read_labels(table)
    missing = [str(path.relative_to(folder)) for path in paths if str(path.relative_to(folder)) not in known]
    if missing:
        raise InputError(f"{table} names no label for {len(missing)} image(s).", found=", ".join(missing[:5]))
    return np.array([known[str(path.relative_to(folder))] for path in paths], np.int64)


def _read_labels(table: Path) -> Mapping[str, int]:
    known = {}
    try:
        text = io.StringIO(read_text(table, limit=_MOST_LABEL_BYTES), newline="")
        for line, row in enumerate(csv.reader(text)):
            if len(row) < 2 or (line == 0 and not row[1].strip().isdecimal()):
                continue
            known[row[0].strip()] = _class_index(row[1])
    except (ValueError, csv.Error) as error:
        raise InputError(
            f"{table} cannot be read.", found=str(error), remedy="Write one line an image: file name, class index."
        ) from None
    return known


def _class_index(text: str) -> int:
    index = int(text)
    if not 0 <= index < 2**31:
        raise ValueError(f"class index {text.strip()[:40]}")
    return index
