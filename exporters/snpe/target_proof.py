"""For which SoC and Hexagon a context binary was compiled, by what its compiler wrote into it.

libHtpPrepare leaves the settings of the graph it prepared in the binary as text (";soc_type=SM8350;arch=68;...");
seen in QAIRT 2.51 for V68 to V81.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgedeploy.errors import ToolFailedError

_TARGET = re.compile(rb"[;,]soc_type=(\w+);arch=(\d+);")
_VTCM = re.compile(rb";vtcm_size=(\d+);")
_RUNTIME = re.compile(rb"v(\d+\.\d+\.\d+)\.\d{12}")


@dataclass(frozen=True)
class TargetProof:
    """Attributes: soc, arch, vtcm_mb of each graph in the binary; runtime, the QAIRT version that wrote it."""

    soc: str
    arch: int
    vtcm_mb: float
    runtime: str


def read_proof(binary: Path) -> TargetProof:
    """Read the target out of a context binary; `ToolFailedError` where it does not say one target."""
    data = binary.read_bytes()
    targets = set(_TARGET.findall(data))
    if len(targets) != 1:
        raise ToolFailedError(
            "The context binary does not say for which Hexagon it was compiled.",
            found=", ".join(sorted(f"{soc.decode()} V{arch.decode()}" for soc, arch in targets)) or "no target in it",
            remedy="Use onnxruntime-qnn 2.7.0, whose binaries were checked.",
        )
    soc, arch = targets.pop()
    sizes = [int(size) for size in _VTCM.findall(data)]
    versions = sorted({match.decode() for match in _RUNTIME.findall(data)})
    return TargetProof(soc.decode(), int(arch), max(sizes, default=0) / 2**20, versions[-1] if versions else "")


def check_target(proof: TargetProof, arch: int) -> None:
    """`ToolFailedError` where the binary is for another Hexagon than asked."""
    if proof.arch != arch:
        raise ToolFailedError(
            "Qualcomm's compiler made a context binary for another Hexagon than asked.",
            found=f"V{proof.arch} ({proof.soc}), expected V{arch}",
            remedy="Use onnxruntime-qnn 2.7.0, whose binaries were checked.",
        )
