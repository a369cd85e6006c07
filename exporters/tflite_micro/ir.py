"""The TFLite model while it is written: tensors, operators, one subgraph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALIGNMENT = 16
"""Bytes to which constant data is aligned in the file and in the C array (CMSIS-NN and Helium load 128 bits)."""


@dataclass(frozen=True)
class Affine:
    """real = (stored - zero_point) * scale.

    Attributes:
        scale: float32, shape (1,) or (channels,).
        zero_point: int64, same shape.
        axis: the stored axis that the channels run along.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int = 0

    @classmethod
    def of(cls, scale: object, zero_point: object = 0, axis: int = 0) -> Affine:
        """Build from numbers or arrays; a lone zero point is repeated for every channel."""
        scales = np.atleast_1d(np.asarray(scale, np.float32)).reshape(-1)
        points = np.broadcast_to(np.asarray(zero_point, np.int64).reshape(-1), scales.shape)
        return cls(scales, np.ascontiguousarray(points), axis if scales.size > 1 else 0)

    @property
    def per_channel(self) -> bool:
        """True where there is more than one scale."""
        return self.scale.size > 1

    def same_as(self, other: Affine | None) -> bool:
        """True where both give every code the same real value."""
        return (
            other is not None
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )

    def __str__(self) -> str:
        if self.per_channel:
            return f"{self.scale.size} scales along axis {self.axis}"
        return f"scale {float(self.scale[0]):.9g}, zero point {int(self.zero_point[0])}"


@dataclass(frozen=True)
class Tensor:
    """A stored tensor; ``data`` is set for constants, ``where`` names the tensor of the source graph."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Affine | None = None
    data: NDArray[Any] | None = None
    variable: bool = False

    @property
    def size_bytes(self) -> int:
        """Bytes of its data."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Operator:
    """One builtin operator.

    Attributes:
        builtin: its name in the TFLite schema ("CONV_2D").
        inputs, outputs: tensor indices; -1 for an operand left out.
        options: the fields of its options table, by schema name ("strideH").
        source: the node of the source graph it came from, for messages and listings.
        intermediates: indices of intermediate tensors (LSTM only).
    """

    builtin: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    intermediates: tuple[int, ...] = ()


@dataclass
class TfliteModel:
    """A model with one subgraph; operators are in execution order."""

    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def add(self, tensor: Tensor) -> int:
        """Append a tensor and return its index."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    @property
    def builtins(self) -> tuple[str, ...]:
        """The distinct operators, sorted by name: what an exact op resolver registers."""
        return tuple(sorted({operator.builtin for operator in self.operators}))
