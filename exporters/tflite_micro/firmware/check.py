"""`check_sources`: compile the generated C and C++ with a cross compiler and size what it makes.

Without a tflite-micro tree only the parts that need none are compiled: the model array (as C and as C++), the
contract, the arena, the golden vectors, and the start-up code of the emulated board.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgedeploy.errors import InputError, MissingToolError, ToolFailedError
from edgedeploy.exporters.tflite_micro.firmware.cores import CORES
from edgedeploy.exporters.tflite_micro.firmware.tree import RuntimeTree

COMPILER = "arm-none-eabi-g++"
INSTALL_COMPILER = "apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi libstdc++-arm-none-eabi-newlib"
WARNINGS = ("-Wall", "-Wextra", "-Werror")

#: Headers that stand alone; each is compiled in both languages.
PLAIN_HEADERS = ("model_data.h", "model.h", "model_arena.h", "golden_vectors.h")


@dataclass(frozen=True)
class SourceCheck:
    """Sizes of the compiled model object, bytes: constants and code in flash, and initialised or zeroed RAM."""

    text: int
    data: int
    bss: int
    with_runtime: bool


def check_sources(folder: Path, cpu: str, tree: RuntimeTree | None = None) -> SourceCheck:
    """Compile every source in ``folder`` for a core, warnings as errors.

    Args:
        folder: a firmware folder.
        cpu: the profile's core ("cortex-m4").
        tree: a tflite-micro tree; adds ``op_resolver.h`` and ``main.cc``.

    Raises:
        MissingToolError: the cross compiler is not installed.
        InputError: the core has no flags here.
        ToolFailedError: the compiler refused a source; its message is quoted.
    """
    compiler = shutil.which(COMPILER)
    if compiler is None:
        raise MissingToolError(COMPILER, install=INSTALL_COMPILER)
    if cpu not in CORES:
        raise InputError(f"{COMPILER} is not asked to compile for {cpu!r}.", remedy=f"It knows: {', '.join(CORES)}.")
    with tempfile.TemporaryDirectory(prefix="edgedeploy-cc-") as scratch:
        out = Path(scratch)
        base = [*CORES[cpu], *WARNINGS, "-I", str(folder)]
        model = out / "model.o"
        _compile(compiler, [*base, "-x", "c", "-std=c11", "-c", str(folder / "model_data.cc"), "-o", str(out / "c.o")])
        _compile(compiler, [*base, "-std=c++17", "-c", str(folder / "model_data.cc"), "-o", str(model)])
        user = out / "user.cc"
        user.write_text("".join(f'#include "{name}"\n' for name in PLAIN_HEADERS), encoding="ascii")
        # Unused golden vectors are static: their own use is in main.cc.
        plain = [*base, "-Wno-unused-variable"]
        _compile(compiler, [*plain, "-std=c++17", "-c", str(user), "-o", str(out / "user.o")])
        _compile(compiler, [*plain, "-x", "c", "-std=c11", "-c", str(user), "-o", str(out / "user_c.o")])
        startup = folder / "emulated/startup.c"
        if startup.is_file():
            _compile(compiler, [*base, "-x", "c", "-std=c11", "-Os", "-c", str(startup), "-o", str(out / "startup.o")])
        if tree is not None:
            _compile(compiler, [*base, *_runtime_flags(tree), "-c", str(folder / "main.cc"), "-o", str(out / "m.o")])
        return SourceCheck(*_sizes(model), with_runtime=tree is not None)


def _runtime_flags(tree: RuntimeTree) -> list[str]:
    flags = ["-std=c++17", "-fno-rtti", "-fno-exceptions", "-DTF_LITE_STATIC_MEMORY"]
    # The runtime's own headers are not ours to warn about.
    return [*flags, *(part for folder in tree.include_folders for part in ("-isystem", str(folder)))]


def _compile(compiler: str, arguments: list[str]) -> None:
    done = subprocess.run([compiler, *arguments], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise ToolFailedError(
            "The cross compiler refused a generated source.", found=" | ".join(done.stderr.strip().splitlines()[:6])
        )


def _sizes(path: Path) -> tuple[int, int, int]:
    size = shutil.which(COMPILER.replace("g++", "size")) or "size"
    done = subprocess.run([size, str(path)], capture_output=True, text=True, timeout=60, check=True)
    text, data, bss = done.stdout.splitlines()[1].split()[:3]
    return int(text), int(data), int(bss)
