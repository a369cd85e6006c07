"""`find_tree`: the tflite-micro source tree that the environment names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edgedeploy.errors import InputError

VARIABLE = "TFLITE_MICRO_DIR"
GIVE_TREE = f"Set {VARIABLE} to a clone of github.com/tensorflow/tflite-micro"
GET_THIRD_PARTY = (
    "Run in it: make -f tensorflow/lite/micro/tools/make/Makefile third_party_downloads OPTIMIZED_KERNEL_DIR=cmsis_nn"
)

_HEADER = Path("tensorflow/lite/micro/micro_interpreter.h")
#: Where third-party code lies: in a tree that create_tflm_tree.py made, and in a clone.
_THIRD_PARTY = (Path("third_party"), Path("tensorflow/lite/micro/tools/make/downloads"))


@dataclass(frozen=True)
class RuntimeTree:
    """A tflite-micro tree and the folder of its third-party code."""

    root: Path
    third_party: Path

    @property
    def include_folders(self) -> tuple[Path, ...]:
        """What the runtime's headers are included from."""
        third = self.third_party
        return (self.root, third / "flatbuffers/include", third / "gemmlowp", third / "ruy")

    @property
    def kernels(self) -> str:
        """Which kernels tflite_micro.cmake takes for an Arm core."""
        optimised = (self.third_party / "cmsis_nn/Include/arm_nnfunctions.h").is_file()
        return "CMSIS-NN" if optimised else "reference"

    @classmethod
    def at(cls, root: Path) -> RuntimeTree:
        """Look at a folder.

        Raises:
            InputError: it is no folder, holds no tflite-micro, or lacks the third-party code.
        """
        if not (root / _HEADER).is_file():
            found = f"{root} has no {_HEADER}" if root.is_dir() else f"there is no folder {root}"
            raise InputError("There is no tflite-micro source tree.", found=found, remedy=f"{GIVE_TREE}, or unset it.")
        for folder in _THIRD_PARTY:
            if (root / folder / "flatbuffers/include").is_dir():
                return cls(root.resolve(), (root / folder).resolve())
        raise InputError(f"The tflite-micro tree {root} lacks its third-party code.", remedy=f"{GET_THIRD_PARTY}.")


def find_tree() -> RuntimeTree | None:
    """The tree that `VARIABLE` names; ``None`` where it is not set.

    Raises:
        InputError: what it names is not a complete tflite-micro tree.
    """
    named = os.environ.get(VARIABLE, "")
    return RuntimeTree.at(Path(named)) if named else None
