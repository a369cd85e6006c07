"""Names, shapes and types of a model's inputs and outputs, and what a deployed artefact promises about them."""

from __future__ import annotations

from dataclasses import dataclass

Dimension = int | str
"""A size, or the name of a size that is only known at run time ("batch")."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor: ``dtype`` is a numpy name ("float32", "int64"); a ``str`` dimension is dynamic."""

    name: str
    shape: tuple[Dimension, ...]
    dtype: str

    @property
    def is_static(self) -> bool:
        """True where every dimension is a number."""
        return all(isinstance(size, int) for size in self.shape)

    @property
    def elements(self) -> int:
        """Number of elements, dynamic dimensions counted as 1."""
        count = 1
        for size in self.shape:
            count *= size if isinstance(size, int) else 1
        return count

    def __str__(self) -> str:
        return f"{self.name}:{'x'.join(str(size) or '?' for size in self.shape)}:{self.dtype}"


@dataclass(frozen=True)
class PortSpec:
    """One input or output of a deployed artefact.

    Attributes:
        source_name: its name in the captured graph.
        name: its name in the artefact.
        shape, dtype: as the artefact takes or gives it.
        layout: axis letters in the artefact's order ("NCHW", "NHWC"), empty where it has none.
        to_layout: permutation from the captured graph's axes to the artefact's, empty for identity.
        scale, zero_point: real = (stored - zero_point) * scale; ``None`` for floats.
    """

    source_name: str
    name: str
    shape: tuple[Dimension, ...]
    dtype: str
    layout: str = ""
    to_layout: tuple[int, ...] = ()
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class Contract:
    """What an integrator must feed and will get."""

    inputs: tuple[PortSpec, ...]
    outputs: tuple[PortSpec, ...]
