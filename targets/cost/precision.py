"""From an artefact's scheme to the arithmetic the device does."""

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

#: Parts of scheme names, first match wins: 16-bit activations before the plain 8-bit schemes that share a prefix.
_SCHEMES: tuple[tuple[str, Precision], ...] = (
    ("float32", FLOAT32),
    ("fp32", FLOAT32),
    ("float16", FLOAT16),
    ("fp16", FLOAT16),
    ("a16", INT16),
    ("int16", INT16),
    ("a8w8", INT8),
    ("int8", INT8),
    ("tflite", INT8),
    ("tensorrt", INT8),
    ("onnxruntime", INT8),
)


def precision_of(scheme: str) -> Precision:
    """The arithmetic of a scheme ("qnn-a16w8" → int16); an unknown name counts as float32, the slowest.

    Weights stored in fewer bits than they are computed in ("palettized") are read as they are computed.
    """
    lower = scheme.lower()
    return next((precision for part, precision in _SCHEMES if part in lower), FLOAT32)
