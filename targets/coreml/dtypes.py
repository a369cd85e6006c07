"""The scalar types of MIL programs: their numbers in the spec and in weight files, their widths and numpy types.

Sources: ``MIL.proto`` (enum DataType) and ``BlobDataType.hpp`` of coremltools' MILBlob.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ScalarType:
    """One MIL type: ``bits`` as stored in a weight file, ``storage`` the numpy type that holds it here."""

    name: str
    mil: int
    blob: int | None
    bits: int
    storage: type[np.generic]

    @property
    def is_float(self) -> bool:
        """True for floating-point types."""
        return self.name.startswith("float")


_TYPES = (
    ScalarType("bool", 1, None, 8, np.bool_),
    ScalarType("string", 2, None, 0, np.object_),
    ScalarType("float16", 10, 1, 16, np.float16),
    ScalarType("float32", 11, 2, 32, np.float32),
    ScalarType("float64", 12, None, 64, np.float64),
    ScalarType("int8", 21, 4, 8, np.int8),
    ScalarType("int16", 22, 6, 16, np.int16),
    ScalarType("int32", 23, 14, 32, np.int32),
    ScalarType("int64", 24, None, 64, np.int64),
    ScalarType("int4", 25, 8, 4, np.int8),
    ScalarType("uint8", 31, 3, 8, np.uint8),
    ScalarType("uint16", 32, 7, 16, np.uint16),
    ScalarType("uint32", 33, 15, 32, np.uint32),
    ScalarType("uint64", 34, None, 64, np.uint64),
    ScalarType("uint4", 35, 11, 4, np.uint8),
    ScalarType("uint2", 36, 10, 2, np.uint8),
    ScalarType("uint1", 37, 9, 1, np.uint8),
    ScalarType("uint6", 38, 13, 6, np.uint8),
    ScalarType("uint3", 39, 12, 3, np.uint8),
)

BY_NAME: dict[str, ScalarType] = {scalar.name: scalar for scalar in _TYPES}
BY_MIL: dict[int, ScalarType] = {scalar.mil: scalar for scalar in _TYPES}
BY_BLOB: dict[int, ScalarType] = {scalar.blob: scalar for scalar in _TYPES if scalar.blob is not None}

#: How MIL writes a type inside a program ("fp16" in ``cast``), by the name used here.
SHORT: dict[str, str] = {"fp16": "float16", "fp32": "float32", "fp64": "float64"}


def named(text: str) -> str:
    """The name used here of a type as a MIL program writes it ("fp16" → "float16")."""
    return SHORT.get(text, text)
