"""The folder that ships: model or engine, cache, and the means to build and prove it on the device."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import onnx

from edgedeploy.exporters.tensorrt.cache import CalibrationCache

if TYPE_CHECKING:
    from edgedeploy.exporters.tensorrt.gate import Ranges
    from edgedeploy.exporters.tensorrt.settings import Settings
    from edgedeploy.tensors import Contract

MODEL, ENGINE, EMULATION = "model.onnx", "model.engine", "emulation.onnx"
FLOAT_MODEL, CACHE = "model_float.onnx", "calibration.cache"
BUILD_SH, BUILD_PY, GPU_PY, BUILD_JSON = "build.sh", "build.py", "device_gpu.py", "build.json"

#: The scripts that ship, and the files of this package that they are.
PY_SOURCES = {BUILD_PY: "device_build.py", GPU_PY: "device_gpu.py"}


@dataclass(frozen=True)
class Legacy:
    """The implicit path of TensorRT 10 and older: a float model and the cache that quantizes it."""

    model: onnx.ModelProto
    cache: CalibrationCache


def write_package(
    folder: Path, settings: Settings, contract: Contract, ranges: Ranges, *, int8: bool, legacy: Legacy | None
) -> None:
    """Write everything beside the model that a device needs to build it and compare it with the golden vectors."""
    if legacy is not None:
        onnx.save(legacy.model, folder / FLOAT_MODEL)
        (folder / CACHE).write_bytes(legacy.cache.to_bytes())
    config = _config(settings, contract, ranges, int8=int8, legacy=legacy is not None)
    (folder / BUILD_JSON).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    package = resources.files("edgedeploy.exporters.tensorrt")
    for name, source in PY_SOURCES.items():
        (folder / name).write_bytes((package / source).read_bytes())
    if not settings.rtx:
        (folder / BUILD_SH).write_bytes(render_build_sh(config))
        (folder / BUILD_SH).chmod(0o755)


def render_build_sh(config: Mapping[str, Any]) -> bytes:
    """The shell script for what build.json says."""
    template = jinja2.Template(
        (resources.files("edgedeploy.exporters.tensorrt") / "build.sh.j2").read_text(encoding="utf-8"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    text: str = template.render(_shell(config))
    return f"{text}\n".encode()


def _config(settings: Settings, contract: Contract, ranges: Ranges, *, int8: bool, legacy: bool) -> dict[str, Any]:
    return {
        "model": MODEL,
        "engine": ENGINE,
        "prebuilt": settings.rtx,
        "module": "tensorrt_rtx" if settings.rtx else "tensorrt",
        "tensorrt_version": settings.version,
        "compute_capability": settings.compute_capability,
        "strongly_typed": settings.strongly_typed,
        "flags": [] if settings.strongly_typed else ["FP16", *(["INT8"] if int8 else [])],
        "legacy": {"model": FLOAT_MODEL, "cache": CACHE} if legacy else None,
        "ranges": {name: [list(shape) for shape in shapes] for name, shapes in ranges.items()},
        "inputs": [
            {"name": port.name, "source": port.source_name, "dtype": port.dtype, "shape": list(port.shape)}
            for port in contract.inputs
        ],
        "outputs": [{"name": port.name, "source": port.source_name, "dtype": port.dtype} for port in contract.outputs],
    }


def _shell(config: Mapping[str, Any]) -> dict[str, str]:
    """Words for the shell script, quoted: tensor names come from the model and may hold anything."""
    shapes = []
    for flag, which in (("--minShapes", 0), ("--optShapes", 1), ("--maxShapes", 2)):
        spec = ",".join(f"{name}:{'x'.join(map(str, rows[which]))}" for name, rows in config["ranges"].items())
        if spec:
            shapes.append(shlex.quote(f"{flag}={spec}"))
    return {
        "model": shlex.quote(config["model"]),
        "shapes": " ".join(shapes),
        "old_flags": " ".join(f"--{flag.lower()}" for flag in config["flags"]),
        "strongly_typed": "yes" if config["strongly_typed"] else "",
        "version": config["tensorrt_version"],
        "legacy": "yes" if config["legacy"] else "",
    }
