"""`check_sources`: compile the generated C and C++ with a cross compiler and size what it makes.

Without a tflite-micro tree only the parts that need none are compiled: the model array (as C and as C++), the
contract, the arena and the golden vectors.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgedeploy.errors import InputError, MissingToolError, ToolFailedError

COMPILER = "arm-none-eabi-g++"
WARNINGS = ("-Wall", "-Wextra", "-Werror")

#: Compiler flags by core; a core without an entry (Xtensa) is not checked by this compiler.
CORES: dict[str, tuple[str, ...]] = {
    "cortex-m0plus": ("-mcpu=cortex-m0plus", "-mthumb"),
    "cortex-m4": ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
    "cortex-m7": ("-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-d16"),
    "cortex-m33": ("-mcpu=cortex-m33", "-mthumb", "-mfloat-abi=hard"),
    "cortex-m55": ("-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"),
}

#: Headers that stand alone; each is compiled in both languages.
PLAIN_HEADERS = ("model_data.h", "model.h", "model_arena.h", "golden_vectors.h")


@dataclass(frozen=True)
class SourceCheck:
    """Sizes of the compiled model object, bytes: constants and code in flash, and initialised or zeroed RAM."""

    text: int
    data: int
    bss: int
    with_runtime: bool


def check_sources(folder: Path, cpu: str, tflite_micro: Path | None = None) -> SourceCheck:
    """Compile every source in ``folder`` for a core, warnings as errors.

    Args:
        folder: a firmware folder.
        cpu: the profile's core ("cortex-m4").
        tflite_micro: a tflite-micro tree with its downloads; adds ``op_resolver.h`` and ``main.cc``.

    Raises:
        MissingToolError: the cross compiler is not installed.
        InputError: the core has no flags here.
        ToolFailedError: the compiler refused a source; its message is quoted.
    """
    compiler = shutil.which(COMPILER)
    if compiler is None:
        raise MissingToolError(
            COMPILER, install="apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi libstdc++-arm-none-eabi-newlib"
        )
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
        if tflite_micro is not None:
            _compile(
                compiler, [*base, *_runtime_flags(tflite_micro), "-c", str(folder / "main.cc"), "-o", str(out / "m.o")]
            )
        return SourceCheck(*_sizes(model), with_runtime=tflite_micro is not None)


def _runtime_flags(tree: Path) -> list[str]:
    downloads = tree / "tensorflow/lite/micro/tools/make/downloads"
    folders = [tree, downloads / "flatbuffers/include", downloads / "gemmlowp", downloads / "ruy"]
    flags = ["-std=c++17", "-fno-rtti", "-fno-exceptions", "-DTF_LITE_STATIC_MEMORY"]
    # The runtime's own headers are not ours to warn about.
    return [*flags, *(part for folder in folders for part in ("-isystem", str(folder)))]


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
