"""Raw golden inputs and expected outputs for a first run on the phone, as snpe-net-run and qnn-net-run read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgedeploy.graph.as_written import open_as_written

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Stored(Protocol):
    """How a graph input or output is stored; `Boundary` and `PortSpec` both say it."""

    @property
    def name(self) -> str:
        """Its name in the artefact."""
        ...

    @property
    def dtype(self) -> str:
        """Numpy name."""
        ...

    @property
    def scale(self) -> float | None:
        """Real = (stored - zero_point) * scale; ``None`` for what is not quantized."""
        ...

    @property
    def zero_point(self) -> int | None:
        """See ``scale``."""
        ...


Sample = Mapping[str, "NDArray[np.generic]"]


def stored(values: NDArray[np.generic], port: Stored) -> NDArray[np.generic]:
    """Real values as ``port`` stores them: round half to even and saturate (ONNX QuantizeLinear)."""
    if port.scale is None or port.zero_point is None:
        return values.astype(port.dtype)
    limits = np.iinfo(port.dtype)
    codes = np.rint(values.astype(np.float64) / port.scale) + port.zero_point
    return np.clip(codes, limits.min, limits.max).astype(port.dtype)


def real(values: NDArray[np.generic], port: Stored) -> NDArray[np.generic]:
    """Stored values as float32; what is not quantized is left as it is."""
    if port.scale is None or port.zero_point is None:
        return values
    return ((values.astype(np.float64) - port.zero_point) * port.scale).astype(np.float32)


def write_inputs(folder: Path, samples: Sequence[Sample], inputs: Sequence[Stored], device_folder: str) -> Path:
    """Write each sample's inputs as raw files and the list that the vendor's tools read; returns the list.

    One inference a line, ``name:=file`` separated by blanks (Qualcomm's documentation of ``--input_list``).

    Args:
        folder: receives ``input_list.txt`` and ``input_<sample>_<input>.raw``.
        samples: already in the types of the artefact's float boundary.
        device_folder: where the raw files will lie when the list is read.

    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index, sample in enumerate(samples):
        parts = []
        for position, port in enumerate(inputs):
            name = f"input_{index}_{position}.raw"
            np.ascontiguousarray(stored(sample[port.name], port)).tofile(folder / name)
            parts.append(f"{port.name}:={device_folder}/{name}")
        lines.append(" ".join(parts))
    path = folder / "input_list.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def emulate(model: Path, samples: Sequence[Sample]) -> list[dict[str, NDArray[np.generic]]]:
    """Outputs of the Q/DQ graph on this host's CPU, by name: what the device should give to within rounding."""
    session = open_as_written(model)
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, dict(sample)), strict=True)) for sample in samples]
