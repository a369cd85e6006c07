"""What a run on some machine proves about the profile's device: the evidence for its numerics and for its times."""

from __future__ import annotations

from dataclasses import dataclass

from edgedeploy.device_profiles.machine import NATIVE, Machine, profile_machine
from edgedeploy.device_profiles.schema import DeviceProfile
from edgedeploy.errors import InputError
from edgedeploy.evidence import Evidence


@dataclass(frozen=True)
class Standing:
    """What may be claimed.

    Attributes:
        numerics: evidence of the outputs.
        times: evidence of latency, throughput, memory and load time; ``none`` where they would mislead.
        why: a sentence on what differs, empty where nothing does.
    """

    numerics: Evidence
    times: Evidence
    why: str = ""


def standing(profile: DeviceProfile, machine: Machine, device: str) -> Standing:
    """Compare the machine that ran the artefact with the profile.

    Args:
        profile: the target.
        machine: what ran it, as its own CPUID reports.
        device: "" for a run on this host that nobody called the device.

    Raises:
        InputError: the user called a machine the device that lacks the profile's instruction set.
    """
    if profile.hardware.arch == NATIVE:
        return Standing(Evidence.DEVICE, Evidence.DEVICE)
    target = profile_machine(profile)
    lacking = sorted(target.features - machine.features)
    if machine.arch != target.arch or lacking:
        difference = machine.arch if machine.arch != target.arch else f"no {', '.join(lacking)}"
        if device:
            raise InputError(
                f"The device {device} is not a {profile.name}.",
                found=f"{machine.cpu or machine.arch}: {difference}",
                remedy=f"{profile.name} needs {target.arch} with {', '.join(sorted(target.features))}; "
                "name the right device or target.",
            )
        return Standing(
            Evidence.EXECUTOR,
            Evidence.NONE,
            f"this machine ({difference}) runs the artefact but is no {profile.name}, so its times are not shown",
        )
    if device:
        return Standing(Evidence.DEVICE, Evidence.DEVICE)
    if machine.integer_path is not target.integer_path:
        return Standing(
            Evidence.EXECUTOR,
            Evidence.NONE,
            f"this machine multiplies integers by {machine.integer_path}, a {profile.name} by {target.integer_path}, "
            "so other kernels ran and their times are not shown",
        )
    if machine.is_arm and machine.is_board != (profile.device.device_class == "edge"):
        return Standing(
            Evidence.SIMULATOR,
            Evidence.NONE,
            f"this machine has the CPU of a {profile.name} but is of another class, so its times are not shown",
        )
    beyond = sorted(feature for feature in ("amx_int8", "avx512_bf16") if feature in machine.features)
    return Standing(
        Evidence.SIMULATOR,
        Evidence.SIMULATOR,
        f"this machine also has {', '.join(beyond)}, which a {profile.name} may lack" if beyond else "",
    )
