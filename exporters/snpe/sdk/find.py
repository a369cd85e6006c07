"""Find a Qualcomm SDK by the variables that its own set-up scripts use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edgedeploy.errors import InputError

#: In this order: QAIRT holds both tool families, QNN the newer, SNPE the older.
VARIABLES = ("QAIRT_SDK_ROOT", "QNN_SDK_ROOT", "SNPE_ROOT")
_TOOLS = Path("bin") / "x86_64-linux-clang"
#: The pairs of converter and quantizer, newest first.
KINDS: dict[str, tuple[str, str]] = {
    "qairt-converter": ("qairt-converter", "qairt-quantizer"),
    "snpe-onnx-to-dlc": ("snpe-onnx-to-dlc", "snpe-dlc-quantize"),
}


@dataclass(frozen=True)
class Sdk:
    """An SDK: the variable that names it, its folder, and the pair of tools it has (a key of `KINDS`)."""

    variable: str
    root: Path
    kind: str

    @property
    def converter(self) -> Path:
        """Path of the converter."""
        return self.root / _TOOLS / KINDS[self.kind][0]

    @property
    def quantizer(self) -> Path:
        """Path of the quantizer."""
        return self.root / _TOOLS / KINDS[self.kind][1]

    def environment(self) -> dict[str, str]:
        """Variables that the tools need."""
        python = str(self.root / "lib" / "python")
        libraries = str(self.root / "lib" / "x86_64-linux-clang")
        known = os.environ.get("PYTHONPATH", ""), os.environ.get("LD_LIBRARY_PATH", "")
        return {
            "PYTHONPATH": os.pathsep.join(part for part in (python, known[0]) if part),
            "LD_LIBRARY_PATH": os.pathsep.join(part for part in (libraries, known[1]) if part),
        }


def find_sdk() -> Sdk | None:
    """Find the SDK that the environment names; ``None`` where it names none.

    Raises:
        InputError: a variable points at no folder, or at one without converters.

    """
    for variable in VARIABLES:
        value = os.environ.get(variable, "")
        if not value:
            continue
        root = Path(value)
        for kind, tools in KINDS.items():
            if all((root / _TOOLS / tool).is_file() for tool in tools):
                return Sdk(variable, root.resolve(), kind)
        wanted = " or ".join(f"{first} with {second}" for first, second in KINDS.values())
        raise InputError(
            f"{variable} does not point at a Qualcomm SDK.",
            found=f"{value}: " + ("no such folder" if not root.is_dir() else f"{_TOOLS} has not {wanted}"),
            remedy=f"Set {variable} to the SDK's folder (the one that holds bin/), or unset it to use onnxruntime-qnn.",
        )
    return None
