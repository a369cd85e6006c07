"""Backend options: from the profile and the command line, checked, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgedeploy.backend_options import Form, Option, read
from edgedeploy.calibration import repair
from edgedeploy.errors import InputError
from edgedeploy.exporters.snpe.qnn.options import Hexagon

if TYPE_CHECKING:
    from edgedeploy.device_profiles.schema import DeviceProfile

TOOLCHAINS = ("auto", "sdk", "onnxruntime-qnn")

#: Every option with what it means; docs/snapdragon.md prints the same list.
OPTIONS: tuple[Option, ...] = (
    Option("toolchain", "auto, sdk (the Qualcomm SDK) or onnxruntime-qnn", choices=TOOLCHAINS),
    Option("io", "what the artefact takes and gives", choices=("float32", "quantized")),
    Option("vtcm_mb", "tightly coupled memory to plan for, 0 for the architecture's usual size", Form.NUMBER),
    Option(
        "stamp_soc",
        "true writes the SoC number into the context binary (some 888 firmware then refuses it: error 1002)",
        Form.SWITCH,
    ),
    Option(
        "allow_cpu_nodes",
        "how many ops may stay off the NPU, on the phone's CPU; 0 refuses the model, naming them",
        Form.NUMBER,
    ),
    Option("simulator_samples", "how many samples the HTP simulator runs at most", Form.NUMBER),
    Option("layer_errors", "true compares every layer with the Q/DQ simulation, on one sample", Form.SWITCH),
    Option("simulator_timeout_s", "how long the simulator may take for one sample", Form.NUMBER),
    *repair.OPTIONS,
)
#: Lowest Hexagon version with a native float path (V73 on); below it a float subgraph has nowhere to run.
FIRST_FLOAT_ARCH = 73


@dataclass(frozen=True)
class Settings:
    """Checked options.

    Attributes:
        hexagon: what the shipped context binary is compiled for.
        verify: what the simulator is prepared for, the SoC always named.
        soc_id: Qualcomm's number of the SoC, 0 where the profile does not say.
        toolchain: one of `TOOLCHAINS`.
        quantized_io: integer inputs and outputs.
        allow_cpu_nodes: most ops that may stay on the CPU; 0 disables CPU fallback altogether.
        simulator_samples: 0 for as many as suit the model's size.
        repairs: of accuracy.

    """

    hexagon: Hexagon
    verify: Hexagon
    soc_id: int
    toolchain: str = "auto"
    quantized_io: bool = False
    allow_cpu_nodes: int = 0
    simulator_samples: int = 0
    layer_errors: bool = False
    simulator_timeout_s: float = 300.0
    repairs: repair.Repairs = field(default_factory=repair.Repairs)


def settings_of(profile: DeviceProfile, options: Mapping[str, str]) -> Settings:
    """Read a profile's and the command line's options; the command line wins.

    Raises:
        InputError: an unknown option or value, or a profile without a Hexagon architecture.

    """
    chosen = read(OPTIONS, "Snapdragon", profile, options)
    if profile.quantization.io_dtype:
        chosen.setdefault("io", profile.quantization.io_dtype)
    arch = profile.hardware.hexagon_arch
    if arch is None:
        raise InputError(
            f"Profile {profile.name!r} does not say which Hexagon its SoC has.",
            remedy="Set hardware.hexagon_arch, for example 68 for the Snapdragon 888.",
        )
    soc_id = profile.hardware.soc_id or 0
    vtcm_mb = int(float(chosen.get("vtcm_mb", 0)))
    stamped = soc_id if chosen.get("stamp_soc") == "true" else 0
    return Settings(
        hexagon=Hexagon(arch, stamped, vtcm_mb),
        verify=Hexagon(arch, soc_id, vtcm_mb),
        soc_id=soc_id,
        toolchain=chosen.get("toolchain", "auto"),
        quantized_io=chosen.get("io") == "quantized",
        allow_cpu_nodes=int(float(chosen.get("allow_cpu_nodes", 0))),
        simulator_samples=int(float(chosen.get("simulator_samples", 0))),
        layer_errors=chosen.get("layer_errors") == "true",
        simulator_timeout_s=float(chosen.get("simulator_timeout_s", 300)),
        repairs=repair.Repairs.read(chosen),
    )
