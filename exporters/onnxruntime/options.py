"""Backend options of ONNX Runtime targets: the repairs, and whether mixed precision is tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgedeploy.backend_options import Form, Option, read
from edgedeploy.calibration import repair

if TYPE_CHECKING:
    from edgedeploy.device_profiles.schema import DeviceProfile

#: Every option with what it means.
OPTIONS: tuple[Option, ...] = (
    *repair.OPTIONS,
    Option(
        "mixed_precision",
        "false leaves no layer float; otherwise that is tried where plain INT8 misses a quality gate",
        Form.SWITCH,
    ),
)


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
    chosen = read(OPTIONS, "ONNX Runtime", profile, given)
    return Options(repair.Repairs.read(chosen), chosen.get("mixed_precision", "true") == "true")
