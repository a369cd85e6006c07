"""What kind of file a model is, told from its bytes and never from its suffix."""

from __future__ import annotations

import zipfile
from enum import StrEnum
from pathlib import Path

from edgedeploy.errors import InputError
from edgedeploy.model.archive import open_archive
from edgedeploy.untrusted import check_regular, shown

_TAKEN = "a .pt2 archive, TorchScript, a state_dict or checkpoint, safetensors, or ONNX"


class Container(StrEnum):
    """The containers that a trained model comes in."""

    EXPORTED_PROGRAM = "exported_program"
    TORCHSCRIPT = "torchscript"
    PICKLE = "pickle"
    LEGACY_PICKLE = "legacy_pickle"
    SAFETENSORS = "safetensors"
    ONNX = "onnx"


#: First bytes of files that people hand over by mistake, and what to call them.
_STRANGERS: tuple[tuple[bytes, int, str], ...] = (
    (b"version https://git-lfs", 0, "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"<!doctype", 0, "an HTML page: the download probably ended on a log-in or error page"),
    (b"<html", 0, "an HTML page: the download probably ended on a log-in or error page"),
    (b"<?xml", 0, "an XML document"),
    (b"{", 0, "a JSON or text document"),
    (b"\x1f\x8b", 0, "a gzip file: unpack it first"),
    (b"\xfd7zXZ\x00", 0, "an xz file: unpack it first"),
    (b"\x28\xb5\x2f\xfd", 0, "a zstd file: unpack it first"),
    (b"\x89hdf", 0, "an HDF5 file (Keras): convert it to PyTorch or ONNX first"),
    (b"gguf", 0, "a GGUF file: language models in that format are not taken"),
    (b"tfl3", 4, "a TFLite model: it is already exported; give the PyTorch or ONNX source"),
    (b"\x93numpy", 0, "a numpy array: calibration data belongs to --calibration"),
    (b"\x7felf", 0, "an ELF executable or library"),
)


def sniff(path: Path) -> Container:
    """Tell the container of the file at ``path``.

    Raises:
        InputError: where the file is missing, empty, a folder, damaged or of a kind that is not taken.
    """
    try:
        missing, folder = not path.exists(), path.is_dir()
    except (OSError, ValueError):
        missing, folder = True, False
    if missing:
        raise InputError(f"There is no model file {shown(path)!r}.", remedy="Check the path.")
    if folder:
        raise InputError(f"{str(path)!r} is a folder, not a model file.", remedy=f"Give a file: {_TAKEN}.")
    check_regular(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read.", found=error.strerror or str(error)) from error
    if size == 0:
        raise _not_a_model(path, "an empty file (0 bytes)")
    if head.startswith(b"PK"):
        return _sniff_zip(path)
    if zipfile.is_zipfile(path):
        raise _not_a_model(path, "a zip archive hidden behind other bytes")
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= max(size - 8, 0):
        return Container.SAFETENSORS
    lowered = head.lstrip().lower()
    for magic, offset, what in _STRANGERS:
        if lowered[offset:].startswith(magic) or head.lower()[offset:].startswith(magic):
            raise _not_a_model(path, what)
    if head[:1] == b"\x80" and len(head) > 1 and 2 <= head[1] <= 5:
        return Container.LEGACY_PICKLE
    if head[:1] == b"\x08":
        return Container.ONNX
    if not head.strip(b"\x00"):
        raise _not_a_model(path, f"{size} bytes that start with zeros: an unfinished download or a damaged disk")
    raise _not_a_model(path, f"{size} bytes that start with {head[:16]!r}")


def _sniff_zip(path: Path) -> Container:
    with open_archive(path) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
        flat = set(archive.namelist())
    inside = set(names)
    if "archive_format" in inside and any(name.startswith("models/") for name in names):
        return Container.EXPORTED_PROGRAM
    if "serialized_exported_program.json" in flat:
        raise _not_a_model(
            path, "an exported program in the format of torch 2.7 and older: load and save it again with a newer torch"
        )
    if any(name.startswith("data/aotinductor/") for name in names):
        raise _not_a_model(path, "a package of compiled code only (AOTInductor): save the ExportedProgram itself")
    if "constants.pkl" in inside and any(name.startswith("code/") for name in names):
        return Container.TORCHSCRIPT
    if "data.pkl" in inside:
        return Container.PICKLE
    if any(name.endswith(".npy") for name in flat):
        raise _not_a_model(path, "a numpy archive (.npz): calibration data belongs to --calibration")
    shown = ", ".join(sorted(flat)[:5])
    raise _not_a_model(path, f"a zip archive without a model; it holds {shown or 'nothing'}")


def _not_a_model(path: Path, found: str) -> InputError:
    return InputError(f"{str(path)!r} is not a model that can be loaded.", found=found, remedy=f"Give {_TAKEN}.")
