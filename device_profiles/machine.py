"""What a CPU is to the backends that run on CPUs: architecture, features, and the integer arithmetic they give.

Features carry the kernel's names: "flags" (x86) and "Features" (ARM) of /proc/cpuinfo, which reports CPUID.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from edgedeploy.device_profiles.schema import DeviceProfile

#: `hardware.arch` of a profile that stands for whatever machine runs it.
NATIVE = "native"


class IntegerPath(StrEnum):
    """How a CPU multiplies 8-bit integers, which decides the quantization scheme and the kernels that run."""

    VNNI = "vnni"
    """x86 with AVX512-VNNI or AVX-VNNI: unsigned times signed, summed in 32 bits."""

    PAIRWISE = "pairwise"
    """x86 without VNNI: pairs of products are summed in 16 bits and saturate."""

    DOT_PRODUCT = "dot_product"
    """ARM with SDOT/UDOT (Armv8.2) or I8MM."""

    WIDENING = "widening"
    """ARM without the dot-product instructions: widening multiplies."""


@dataclass(frozen=True)
class Machine:
    """A CPU: ``arch`` "x86_64" or "aarch64", its model name, features, cores, and the board it sits on, if named."""

    arch: str
    features: frozenset[str]
    cpu: str = ""
    cores: int = 1
    board: str = ""

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Machine:
        """Read what the ONNX Runtime worker reports of the machine it ran on."""
        return cls(
            normalised_arch(facts["arch"]),
            frozenset(facts["features"]),
            facts["cpu"],
            facts["cores"] or 1,
            facts["board"],
        )

    @property
    def is_arm(self) -> bool:
        """True for 64-bit ARM."""
        return self.arch == "aarch64"

    @property
    def integer_path(self) -> IntegerPath:
        """How it multiplies 8-bit integers."""
        if self.is_arm:
            return IntegerPath.DOT_PRODUCT if "asimddp" in self.features else IntegerPath.WIDENING
        return IntegerPath.VNNI if {"avx512_vnni", "avx_vnni"} & self.features else IntegerPath.PAIRWISE

    @property
    def is_board(self) -> bool:
        """True for a small computer that names its board in the device tree (a Raspberry Pi, a Jetson)."""
        return bool(self.board)


@cache
def this_machine() -> Machine:
    """Return the machine that runs this process; features are unknown where there is no /proc/cpuinfo."""
    features: frozenset[str] = frozenset()
    cpu = board = ""
    cpuinfo, model = Path("/proc/cpuinfo"), Path("/proc/device-tree/model")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("flags", "Features"):
                features = frozenset(value.split())
            elif key.strip() == "model name":
                cpu = value.strip()
    if model.exists():
        board = model.read_text().strip("\0\n")
    return Machine(normalised_arch(platform.machine()), features, cpu, os.cpu_count() or 1, board)


def profile_machine(profile: DeviceProfile) -> Machine:
    """Return the machine that a profile describes: the one at hand for ``arch = "native"``."""
    if profile.hardware.arch == NATIVE:
        return this_machine()
    hardware = profile.hardware
    return Machine(normalised_arch(hardware.arch), frozenset(hardware.isa), profile.device.soc, hardware.cores or 1)


def normalised_arch(name: str) -> str:
    """One name an architecture: "amd64" is "x86_64", "arm64" is "aarch64"."""
    lower = name.lower().replace("-", "_")
    return {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "armv8": "aarch64"}.get(lower, lower)
