"""What a profile and the user's options ask of this backend, checked before any work."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgedeploy.backend_options import Option, read
from edgedeploy.calibration import repair
from edgedeploy.calibration.repair import Repairs
from edgedeploy.errors import InputError
from edgedeploy.exporters.tensorrt.cache import header

if TYPE_CHECKING:
    from edgedeploy.device_profiles.schema import DeviceProfile
    from edgedeploy.exporters.tensorrt.gate import Ranges
    from edgedeploy.tensors import TensorSpec

INT8, FLOAT16 = "tensorrt", "float16"
_RANGE = "range."
_SCHEMES = {"int8": INT8, "float16": FLOAT16}

#: Every option with what it means.
OPTIONS: tuple[Option, ...] = (
    Option("precision", "int8, or float16 for a build without integers", choices=tuple(_SCHEMES)),
    Option(f"{_RANGE}*", "smallest:usual:largest size of a dynamic dimension, as in range.batch=1:4:8"),
    *repair.OPTIONS,
)

#: What TensorRT-RTX 1.7 builds for, by CUDA compute capability; every other one is checked on the stand-in.
BUILDABLE = {"8.0": "SM80", "8.6": "SM86", "8.9": "SM89", "12.0": "SM120"}
STAND_IN = "SM86"

#: Newest opset that the ONNX parser of a TensorRT before 10 takes, by (major, minor)
#: (onnx-tensorrt's docs/operators.md of that release).
_OLD_OPSETS = {(8, 2): 13, (8, 4): 16, (8, 5): 17, (8, 6): 17}


@dataclass(frozen=True)
class Settings:
    """One target's demands.

    Attributes:
        version: the device's TensorRT ("10.3.0"), "" for TensorRT-RTX.
        rtx: the artefact is a TensorRT-RTX engine, built here.
        compute_capability: of the device ("8.7").
        int8: quantize; otherwise float16 only.
        sizes: (smallest, usual, largest) of each dynamic dimension, by its name.
        repairs: of INT8's accuracy.
    """

    version: str
    rtx: bool
    compute_capability: str
    int8: bool
    sizes: Mapping[str, tuple[int, int, int]]
    repairs: Repairs

    @property
    def sm(self) -> str:
        """The SM that the gate builds for: the device's own, or the stand-in."""
        return BUILDABLE.get(self.compute_capability, STAND_IN)

    @property
    def strongly_typed(self) -> bool:
        """True where types are taken from the graph; TensorRT before 10 takes builder flags instead."""
        return self.rtx or int(self.version.split(".")[0]) >= 10

    @property
    def has_calibrators(self) -> bool:
        """True where a calibration cache is of use."""
        return not self.rtx and int(self.version.split(".")[0]) <= 10

    @property
    def opset(self) -> int | None:
        """The opset to convert to, ``None`` where the graph's own is taken."""
        if self.strongly_typed:
            return None
        major, minor = map(int, self.version.split(".")[:2])
        return _OLD_OPSETS.get((major, minor), 13)

    def ranges(self, inputs: tuple[TensorSpec, ...]) -> Ranges:
        """Shapes for every dynamic input; `InputError` names a dimension without a range."""
        shapes = {}
        for tensor in inputs:
            if tensor.is_static:
                continue
            for size in tensor.shape:
                if isinstance(size, str) and size not in self.sizes:
                    raise InputError(
                        "TensorRT needs a range for every dynamic dimension.",
                        found=f"input {tensor.name!r} has the dimension {size!r} without one",
                        remedy=f"Give smallest:usual:largest, for example --option {_RANGE}{size}=1:4:8.",
                    )
            rows = [
                tuple(self.sizes[size][which] if isinstance(size, str) else size for size in tensor.shape)
                for which in range(3)
            ]
            shapes[tensor.name] = (rows[0], rows[1], rows[2])
        return shapes


def read_settings(profile: DeviceProfile, options: Mapping[str, str]) -> Settings:
    """Merge the profile with the user's options (``precision``, ``range.DIMENSION``, the repairs).

    Raises:
        InputError: an option, scheme or version that this backend does not know.
    """
    chosen = read(OPTIONS, "TensorRT", profile, options)
    scheme = _SCHEMES.get(chosen.get("precision", ""), profile.quantization.scheme or INT8)
    if scheme not in (INT8, FLOAT16):
        raise InputError(
            f"{profile.name}: TensorRT has no quantization scheme {scheme!r}.", remedy=f"Use {INT8} or {FLOAT16}."
        )
    if scheme == INT8 and profile.quantization.scheme == FLOAT16:
        raise InputError(
            f"{profile.name} has no INT8 arithmetic worth using.",
            found=f"the profile allows {FLOAT16} only",
            remedy="Leave precision at float16.",
        )
    sizes = {key[len(_RANGE) :]: _range(key, value) for key, value in chosen.items() if key.startswith(_RANGE)}
    rtx = profile.hardware.engine == "tensorrt-rtx"
    if not rtx:
        header(profile.hardware.tensorrt_version)
    return Settings(
        version=profile.hardware.tensorrt_version,
        rtx=rtx,
        compute_capability=profile.hardware.compute_capability,
        int8=scheme == INT8,
        sizes=sizes,
        repairs=Repairs.read(chosen),
    )


def _range(key: str, text: str) -> tuple[int, int, int]:
    parts = text.split(":")
    if len(parts) != 3 or not all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
        raise InputError(f"{key}={text} is not a range.", remedy="Give smallest:usual:largest, for example 1:4:8.")
    low, opt, high = map(int, parts)
    if not 0 < low <= opt <= high:
        raise InputError(f"{key}={text} is not in order.", remedy="Give smallest:usual:largest, for example 1:4:8.")
    return low, opt, high
