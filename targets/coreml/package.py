"""Opens a saved .mlpackage: manifest, protobuf spec and weight files, all from inside its own folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.errors import InputError
from edgedeploy.targets.coreml.blobs import WeightFile
from edgedeploy.targets.coreml.dtypes import ScalarType
from edgedeploy.targets.coreml.vendor import coremltools

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MODEL_PATH = "@model_path/"


@dataclass
class Package:
    """An opened package.

    Attributes:
        path: the .mlpackage folder.
        spec: the ``Model`` message of coremltools' protobuf.
        model_folder: where ``@model_path`` points.
    """

    path: Path
    spec: Any
    model_folder: Path
    _weights: dict[str, WeightFile] = field(default_factory=dict)

    def blob(self, file_name: str, offset: int, scalar: ScalarType, shape: tuple[int, ...]) -> NDArray[Any]:
        """Read one constant that the program keeps in a weight file."""
        if file_name not in self._weights:
            relative = file_name.removeprefix(_MODEL_PATH)
            self._weights[file_name] = WeightFile(_inside(self.path, self.model_folder / relative))
        return self._weights[file_name].read(offset, scalar, shape)

    @property
    def size_bytes(self) -> int:
        """Size of everything that ships."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    @property
    def weight_bytes(self) -> int:
        """Size of the weight files."""
        return sum(file.stat().st_size for file in self.model_folder.glob("weights/*") if file.is_file())


def open_package(path: Path) -> Package:
    """Open an .mlpackage that holds an ML program.

    Raises:
        InputError: not a package, a damaged one, or a model type other than mlProgram (neuralNetwork, pipeline …).
    """
    manifest = path / "Manifest.json"
    if not manifest.is_file():
        raise InputError(
            f"{path.name!r} is not an .mlpackage.", found=f"no Manifest.json in {path}", remedy="Give a saved package."
        )
    try:
        entries = json.loads(manifest.read_text())
        root = entries["itemInfoEntries"][entries["rootModelIdentifier"]]["path"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"The manifest of {path.name!r} is damaged.", found=repr(error), remedy="Export the package again."
        ) from error
    model = _inside(path, path / "Data" / str(root))
    if not model.is_file():
        raise InputError(
            f"The package {path.name!r} lacks its model file.", found=str(root), remedy="Export the package again."
        )
    spec = _parse(model)
    kind = spec.WhichOneof("Type")
    if kind != "mlProgram":
        raise InputError(
            f"{path.name!r} is not an ML program.",
            found=f"a model of type {kind}",
            remedy="Convert it with convert_to='mlprogram' (iOS 15 or newer).",
        )
    return Package(path, spec, model.parent)


def _parse(model: Path) -> Any:
    coremltools()
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]

    spec = Model_pb2.Model()
    try:
        spec.ParseFromString(model.read_bytes())
    except DecodeError as error:
        raise InputError(
            f"{model.name!r} is not a Core ML spec.", found=str(error), remedy="Export the package again."
        ) from error
    return spec


def _inside(package: Path, file: Path) -> Path:
    """Refuse a path that a manifest or program points outside its package."""
    if not file.resolve().is_relative_to(package.resolve()):
        raise InputError(
            f"The package {package.name!r} names a file outside itself.",
            found=str(file),
            remedy="Do not use this package: it was tampered with.",
        )
    return file
