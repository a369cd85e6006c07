"""Backend options of ONNX Runtime targets: the repairs, and whether mixed precision is tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgedeploy.calibration import repair
from edgedeploy.errors import InputError

if TYPE_CHECKING:
    from edgedeploy.device_profiles.schema import DeviceProfile

#: Every option with what it means.
OPTIONS: dict[str, str] = {
    **repair.OPTIONS,
    "mixed_precision": "false leaves no layer float; otherwise that is tried where plain INT8 misses a quality gate",
}


@dataclass(frozen=True)
class Options:
    """Checked options; see `OPTIONS`."""

    repairs: repair.Repairs
    mixed_precision: bool = True


def read_options(profile: DeviceProfile, given: Mapping[str, str]) -> Options:
    """Read a profile's and the command line's options; the command line wins.

    Raises:
        InputError: an unknown option or value.
    """
    merged = {**{key: str(value) for key, value in profile.quantization.options.items()}, **given}
    repairs, rest = repair.Repairs.read(merged)
    mixed = repair.switch(rest, "mixed_precision", OPTIONS["mixed_precision"], default=True)
    if rest:
        known = "; ".join(f"{key} ({meaning})" for key, meaning in OPTIONS.items())
        raise InputError(
            f"The ONNX Runtime backend has no option {', '.join(sorted(rest))}.", remedy=f"Choose from: {known}."
        )
    return Options(repairs, mixed)
