"""What a DLC says: graphs, nodes, tensors, encodings, parameters and metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: numpy names of the storage types, by code (QnnTypes.h: 0x3.. is signed fixed point, 0x4.. unsigned).
STORAGE: dict[int, str] = {
    0x0008: "int8", 0x0016: "int16", 0x0032: "int32", 0x0064: "int64",
    0x0108: "uint8", 0x0116: "uint16", 0x0132: "uint32", 0x0164: "uint64",
    0x0216: "float16", 0x0232: "float32", 0x0264: "float64",
    0x0304: "int8", 0x0308: "int8", 0x0316: "int16", 0x0332: "int32",
    0x0404: "uint8", 0x0408: "uint8", 0x0416: "uint16", 0x0432: "uint32",
    0x0508: "bool",
}  # fmt: skip
STRING = 0x0608
_FLOATS = frozenset({0x0216, 0x0232, 0x0264})


class Role(StrEnum):
    """Where a tensor stands."""

    INPUT = "input"
    OUTPUT = "output"
    NATIVE = "native"
    """Between two nodes."""
    STATIC = "static"
    """A weight, bias or table."""
    OTHER = "other"


@dataclass(frozen=True)
class Encoding:
    """A quantization: real = (stored - zero_point) * scale.

    Attributes:
        bits: as declared.
        scales, zero_points: one each for per-tensor, one a channel otherwise.
        axis: the channel axis in the DLC's layout; ``None`` for per-tensor.
    """

    bits: int
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int | None = None


@dataclass(frozen=True)
class DlcTensor:
    """One tensor; ``code`` is the file's own data type, ``dtype`` how it is stored (numpy name)."""

    name: str
    role: Role
    shape: tuple[int, ...]
    code: int
    encoding: Encoding | None = None

    @property
    def dtype(self) -> str:
        """Numpy name of the storage type, or the code in hexadecimal where it is not known."""
        return STORAGE.get(self.code, hex(self.code))

    @property
    def is_float(self) -> bool:
        """True for a floating-point tensor, which an integer-only Hexagon cannot compute with."""
        return self.code in _FLOATS


@dataclass(frozen=True)
class DlcNode:
    """One op; attribute values are numbers, strings, or arrays for the ones that are tensors."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DlcGraph:
    """One graph, with its parameters by tensor name (read-only views of the mapped file)."""

    name: str
    nodes: tuple[DlcNode, ...]
    tensors: Mapping[str, DlcTensor]
    parameters: Mapping[str, NDArray[np.generic]]

    def by_role(self, role: Role) -> tuple[DlcTensor, ...]:
        """The tensors of one role, in file order."""
        return tuple(tensor for tensor in self.tensors.values() if tensor.role is role)


@dataclass(frozen=True)
class Dlc:
    """A whole file.

    Attributes:
        version: of the model record.
        records: size in bytes by record name.
        metadata, history: the JSON records (or a string where the file is an older one), empty where absent.
    """

    version: tuple[int, int]
    graphs: tuple[DlcGraph, ...]
    records: Mapping[str, int]
    metadata: Any = ""
    history: Any = ""

    @property
    def toolchain(self) -> str:
        """The converter version that the history names, or empty."""
        try:
            version = self.history["dlcGenerationInfo"][0]["converterCommand"]["converterVersion"]
        except (KeyError, IndexError, TypeError):
            return ""
        return str(version)
