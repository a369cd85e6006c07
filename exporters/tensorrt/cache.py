"""TensorRT's INT8 calibration cache: the file through which TensorRT 10 and older take ranges from outside.

Format (as TensorRT writes it): a header line ``TRT-<version>-EntropyCalibration2``, then one line a tensor,
``name: <8 hex digits>``, the big-endian bits of the float32 scale amax / 127. TensorRT ignores a cache whose
header is not exactly its own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgedeploy.errors import InputError

SEPARATOR = ": "
_ALGORITHM = "EntropyCalibration2"
_LARGEST_CODE = 127.0


@dataclass(frozen=True)
class CalibrationCache:
    """Scales by tensor name, for exactly one TensorRT version ("10.3.0")."""

    version: str
    scales: Mapping[str, float]

    def to_bytes(self) -> bytes:
        """The file's content, tensors in the order of ``scales``."""
        lines = [header(self.version)]
        for name, scale in self.scales.items():
            if not is_expressible(name):
                raise InputError(
                    "A tensor name cannot be written to a calibration cache.",
                    found=repr(name),
                    remedy="Rename the tensor: no colon, no line break, no space at an end.",
                )
            if not (np.isfinite(scale) and scale > 0):
                raise InputError("A calibration scale must be positive.", found=f"{name}: {scale}")
            lines.append(f"{name}{SEPARATOR}{struct.pack('>f', scale).hex()}")
        return ("\n".join(lines) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes, *, version: str = "", tensors: Iterable[str] = ()) -> CalibrationCache:
        """Read a cache; with ``version`` and ``tensors`` also refuse one of another TensorRT or another model.

        Raises:
            InputError: not a cache, another version's, or one that misses a tensor of the model.
        """
        try:
            first, *lines = content.decode().splitlines()
        except (UnicodeDecodeError, ValueError) as error:
            raise _not_a_cache("it is empty or not text") from error
        words = first.split("-")
        if len(words) != 3 or words[0] != "TRT" or not words[1].isdigit() or words[2] != _ALGORITHM:
            raise _not_a_cache(f"its first line is {first[:80]!r}")
        if version and first != header(version):
            raise InputError(
                "The calibration cache was written for another TensorRT.",
                found=f"{first!r}, this target needs {header(version)!r}",
                remedy="Calibrate again for this target; TensorRT ignores a cache whose header differs.",
            )
        scales = dict(_entry(number, line) for number, line in enumerate(lines, start=2) if line.strip())
        missing = [name for name in tensors if name not in scales]
        if missing:
            raise InputError(
                "The calibration cache belongs to another model.",
                found=f"{len(missing)} of this model's tensors are not in it, the first is {missing[0]!r}",
                remedy="Calibrate this model.",
            )
        return cls(version or _version(words[1]), scales)


def header(version: str) -> str:
    """First line for a TensorRT version: "10.3.0" -> ``TRT-100300-...``, "8.5.2" -> ``TRT-8502-...``.

    TensorRT 10 widened the number from major*1000 to major*10000 (``NV_TENSORRT_VERSION`` in NvInferVersion.h).
    """
    parts = version.split(".")
    if not (2 <= len(parts) <= 4 and all(part.isdigit() for part in parts)):
        raise InputError("A TensorRT version is needed.", found=repr(version), remedy='Give it as "10.3.0".')
    major, minor, patch = (*map(int, parts[:3]), 0)[:3]
    return f"TRT-{major * (10000 if major >= 10 else 1000) + minor * 100 + patch}-{_ALGORITHM}"


def _version(number: str) -> str:
    """The version behind a header's number; four digits are TensorRT 9 and older."""
    value = int(number)
    major, rest = divmod(value, 10000 if value >= 100000 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def scale_of(low: float, high: float) -> float:
    """The symmetric scale of a range, smallest normal float32 at least."""
    return max(abs(low), abs(high), float(np.finfo(np.float32).tiny) * _LARGEST_CODE) / _LARGEST_CODE


def is_expressible(name: str) -> bool:
    """True where a cache line can hold this tensor name."""
    return bool(name) and ":" not in name and name.isprintable() and name == name.strip()


def _entry(number: int, line: str) -> tuple[str, float]:
    name, separator, digits = line.rpartition(SEPARATOR)
    try:
        bits = bytes.fromhex(digits) if separator and len(digits) == 8 else b""
    except ValueError:
        bits = b""
    if len(bits) != 4:
        raise _not_a_cache(f"line {number} is {line[:80]!r}, expected 'tensor: 8 hex digits'")
    return name, float(struct.unpack(">f", bits)[0])


def _not_a_cache(found: str) -> InputError:
    return InputError(
        "This is not a TensorRT entropy calibration cache.", found=found, remedy="Calibrate again to write a new one."
    )
