"""`Precision`: the arithmetic that an artefact does, as far as the cost model asks: bytes, and which rates apply."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """Bytes of an activation and of a weight; ``name`` is the key in a profile's ``[cost.latency]``."""

    name: str
    activation_bytes: float
    weight_bytes: float

    @property
    def is_integer(self) -> bool:
        """True where activations are integers."""
        return self.name in ("int8", "int16")


FLOAT32 = Precision("float32", 4, 4)
FLOAT16 = Precision("float16", 2, 2)
INT8 = Precision("int8", 1, 1)
INT16 = Precision("int16", 2, 1)
"""16-bit activations, 8-bit weights."""

DYNAMIC_INT8 = Precision("int8", 4, 1)
"""Activations are float32 between the ops and rounded inside them, at run time."""

WEIGHT_ONLY_8 = Precision("float32", 4, 1)
WEIGHT_ONLY_4 = Precision("float32", 4, 0.5)
"""Weights are unpacked by the kernels, which compute in float32."""
