"""Golden vectors: a few inputs with the artefact's own outputs and the FP32 reference's."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.calibration.dataset import Dataset
from edgedeploy.calibration.readers.array_file import read_header
from edgedeploy.errors import InputError
from edgedeploy.plain_text import printable
from edgedeploy.untrusted import check_regular, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.calibration.readers.reader import Labels, Sample
    from edgedeploy.tensors import Contract, PortSpec

INPUTS, OUTPUTS, REFERENCE, LOOP = "inputs.npz", "outputs.npz", "reference.npz", "loop.npz"
MAX_VECTORS = 8
MAX_BYTES = 4_000_000

#: What a damaged zip or .npy makes the standard library and numpy raise.
_DAMAGED = (OSError, ValueError, EOFError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile, OverflowError)


def write_golden(
    folder: Path,
    samples: Dataset,
    outputs: Mapping[str, NDArray[Any]],
    reference: Mapping[str, NDArray[Any]],
    loop: Mapping[str, NDArray[Any]],
) -> int:
    """Write up to 8 vectors, fewer where they are large (4 MB in all, one at least); return how many.

    Inputs are joined on their first axis; outputs and reference are (vectors, *output shape). ``loop`` is what the
    artefact gave for the same vectors as one sequence, fed its own state; empty for a model without.
    """
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
        # Rows are joined, whatever the first axis is: a vector is its share of them.
        inputs = {name: np.concatenate([np.atleast_1d(sample[name]) for sample in chosen]) for name in names}
        files = [(INPUTS, inputs), (OUTPUTS, outputs), (REFERENCE, reference), *([(LOOP, loop)] if loop else [])]
        for file, arrays in files:
            _write_npz(folder / file, {name: np.asarray(value[:count]) for name, value in arrays.items()})
    return count


def read_golden(folder: Path, contract: Contract) -> tuple[Dataset, dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Read inputs, the artefact's outputs and the reference's, each output of shape (vectors, *output shape).

    A file is expanded only as far as the contract's shapes allow.

    Raises:
        InputError: the bundle has no golden vectors, or they are not what the contract says.
    """
    inputs = _read_npz(folder / INPUTS, contract.inputs)
    outputs = _read_npz(folder / OUTPUTS, contract.outputs)
    reference = _read_npz(folder / REFERENCE, contract.outputs)
    counts = {len(value) if value.ndim else 0 for value in (*outputs.values(), *reference.values())}
    count = counts.pop()
    if counts or not 1 <= count <= MAX_VECTORS:
        raise InputError(f"The golden vectors in {shown(folder)} are not {MAX_VECTORS} or fewer for every output.")
    for ports, arrays in ((contract.inputs, inputs), (contract.outputs, outputs), (contract.outputs, reference)):
        for port in ports:
            _check_size(folder, port, arrays[port.source_name], count)
    uneven = [name for name, value in inputs.items() if value.ndim == 0 or len(value) % count]
    if uneven:
        raise InputError(f"The golden vectors in {shown(folder)} are not {count} for input {uneven[0]!r}.")
    ranks = {port.source_name: len(port.shape) for port in contract.inputs}
    reader = _Vectors(inputs, {name: value for name, value in ranks.items() if not value}, count, str(folder / INPUTS))
    return Dataset(reader, tuple(range(count))), outputs, reference


def read_loop(folder: Path, contract: Contract, count: int) -> dict[str, NDArray[Any]]:
    """Read what the artefact gave for the ``count`` vectors as one sequence, each of shape (vectors, *output shape).

    Raises:
        InputError: they are not there, or not what the contract says.
    """
    loop = _read_npz(folder / LOOP, contract.outputs)
    for port in contract.outputs:
        if loop[port.source_name].ndim == 0 or len(loop[port.source_name]) != count:
            raise InputError(f"{shown(folder / LOOP)} does not hold {count} steps of every output.")
        _check_size(folder, port, loop[port.source_name], count)
    return loop


@dataclass(frozen=True)
class _Vectors:
    """Golden inputs, each sample's rows joined on the first axis (one row, unless the model's first axis has more)."""

    arrays: dict[str, NDArray[Any]]
    scalars: Collection[str]
    count: int
    source: str
    labels: Labels = field(default_factory=dict)

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> Sample:
        found = {}
        for name, value in self.arrays.items():
            rows = len(value) // self.count
            sample = np.ascontiguousarray(value[index * rows : (index + 1) * rows])
            found[name] = sample.reshape(()) if name in self.scalars else sample
        return found

    def describe(self, index: int) -> str:
        return f"vector {index}"


def _check_size(folder: Path, port: PortSpec, value: NDArray[Any], count: int) -> None:
    elements = math.prod(size if isinstance(size, int) else 1 for size in port.shape)
    if all(isinstance(size, int) for size in port.shape[1:]) and value.size != count * elements:
        raise InputError(
            f"The golden vectors in {shown(folder)} do not fit the artefact.",
            found=f"{port.source_name!r} has {value.size} values in {count} vectors of {elements}",
        )


def _read_npz(path: Path, ports: Sequence[PortSpec]) -> dict[str, NDArray[Any]]:
    what = f"The golden vectors in {shown(path)}"
    check_regular(path, what)
    sizes = [math.prod(size if isinstance(size, int) else 1 for size in port.shape) for port in ports]
    # A value takes up to 16 bytes, a header up to 64 KB; inputs that the artefact does not take are small.
    limit = max(MAX_BYTES, 16 * MAX_VECTORS * sum(sizes)) + MAX_BYTES
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > limit:
                raise InputError(f"{what} are too large.", found=f"more than {limit / 1e6:.3g} MB when unpacked")
            for member in members:
                with archive.open(member) as stream:
                    header = read_header(stream, what)
                    content = stream.read(header.size_bytes + 1) if header.size_bytes <= limit else b""
                if len(content) != header.size_bytes:
                    raise InputError(f"{what} are damaged.", found=f"{header.shape} in {member.file_size} bytes")
                name = member.filename.removesuffix(".npy")
                found[name] = np.frombuffer(content, header.dtype).reshape(header.shape)
    except _DAMAGED as error:
        raise InputError(f"{what} can't be read.", found=printable(str(error) or type(error).__name__)) from None
    missing = [port.source_name for port in ports if port.source_name not in found]
    if missing or len(found) != len(members):
        raise InputError(
            f"{what} are not those of the artefact.",
            found=f"arrays {', '.join(map(repr, found)) or 'none'}"[:300],
            remedy=f"Expected: {', '.join(repr(port.source_name) for port in ports)}"[:300],
        )
    return found


def _write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write what `numpy.load` reads; unlike `numpy.savez`, any tensor name will do ("file" included)."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(  # type: ignore[no-untyped-call]
                    member, np.ascontiguousarray(value), allow_pickle=False
                )
