"""`build_emulated`: the firmware folder's own CMake project, linked with tflite-micro for the emulated board."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgedeploy.errors import MissingToolError, ToolFailedError
from edgedeploy.exporters.tflite_micro.firmware.check import COMPILER, INSTALL_COMPILER
from edgedeploy.exporters.tflite_micro.firmware.tree import RuntimeTree

#: The runtime's 200 sources take one core a few minutes.
TIMEOUT_S = 1800

_TROUBLE = re.compile(
    r"\berror\b|undefined reference|multiple definition|will not fit|overflowed|No such file", re.IGNORECASE
)
_NEEDED = (
    (COMPILER, INSTALL_COMPILER),
    ("cmake", "apt-get install cmake"),
    ("make", "apt-get install make"),
)


@dataclass(frozen=True)
class LinkedFirmware:
    """A linked test firmware and its sizes in bytes.

    Attributes:
        elf: the file.
        flash_bytes: code, constants and initial values, golden vectors left out.
        static_ram_bytes: initialised and zeroed variables, the arena included and the stack left out.
    """

    elf: Path
    flash_bytes: int
    static_ram_bytes: int


def build_emulated(folder: Path, tree: RuntimeTree, scratch: Path) -> LinkedFirmware:
    """Build a firmware folder for its emulated board, in ``scratch``.

    Raises:
        MissingToolError: the cross compiler, cmake or make is not installed.
        ToolFailedError: the build failed or did not end; the first line that says why is quoted.
    """
    for tool, install in _NEEDED:
        if shutil.which(tool) is None:
            raise MissingToolError(tool, install=install)
    configure = ["cmake", "-S", str(folder), "-B", str(scratch), "-G", "Unix Makefiles", "-DEDGEDEPLOY_EMULATED=ON"]
    configure += [f"-DTFLITE_MICRO_DIR={tree.root}", f"-DCMAKE_TOOLCHAIN_FILE={folder.resolve() / 'toolchain.cmake'}"]
    _run(configure, tree)
    _run(["cmake", "--build", str(scratch), "--parallel", str(os.cpu_count() or 1)], tree)
    elf = next(path for path in scratch.iterdir() if path.name.endswith("_golden"))
    return LinkedFirmware(elf, *_sizes(elf))


def _run(command: list[str], tree: RuntimeTree) -> None:
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT_S, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired:
        raise ToolFailedError(f"The firmware's build did not end in {TIMEOUT_S} s.", found=" ".join(command)) from None
    if done.returncode == 0:
        return
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    first = next((number for number, line in enumerate(lines) if _TROUBLE.search(line)), max(len(lines) - 3, 0))
    raise ToolFailedError(
        f"The firmware does not build with the tflite-micro tree {tree.root}.",
        found=" | ".join(lines[first : first + 3]),
        remedy="Bring the tree to the state of a release that its own tests pass on, or unset TFLITE_MICRO_DIR.",
    )


def _sizes(elf: Path) -> tuple[int, int]:
    """Flash and static RAM by section; by symbol, what only the test needs: vectors and what to expect of them."""
    sections = {
        fields[0]: int(fields[1])
        for fields in map(str.split, _tool("size", "-A", str(elf)).splitlines())
        if len(fields) == 3 and fields[0].startswith(".") and fields[1].isdigit()
    }
    flash = sum(sections.get(name, 0) for name in (".vectors", ".text", ".ARM.extab", ".ARM.exidx", ".data"))
    golden = 0
    for line in _tool("nm", "-S", str(elf)).splitlines():
        fields = line.split()
        if len(fields) == 4 and re.search(r"_golden_(crc|input\d+|output\d+)$", fields[3]):
            golden += int(fields[1], 16)
    return flash - golden, sections.get(".data", 0) + sections.get(".bss", 0)


def _tool(name: str, *arguments: str) -> str:
    program = COMPILER.replace("g++", name)
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise ToolFailedError(f"{program} cannot read the linked firmware.", found=done.stderr.strip())
    return done.stdout
