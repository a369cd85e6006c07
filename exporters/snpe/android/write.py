"""Write the Android-side files from templates that know this model's names, shapes and scales."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from edgedeploy.exporters.snpe.golden import emulate, stored, write_inputs

if TYPE_CHECKING:
    from edgedeploy.exporters.snpe.artefact import Built
    from edgedeploy.exporters.snpe.golden import Sample
    from edgedeploy.exporters.snpe.settings import Settings

DEVICE_FOLDER = "/data/local/tmp/edgedeploy"
FILES = {
    "run_on_device.sh": "run_on_device.sh.j2",
    "NOTES.md": "notes.md.j2",
    "Inference.kt": "inference.kt.j2",
    "inference.cpp": "inference.cpp.j2",
}
#: What runs a DLC with Qualcomm's own runtime, which has no CPU to leave ops to.
FOR_DLC = frozenset({"run_on_device.sh.j2", "inference.cpp.j2"})
_UNSAFE = re.compile(r"[^A-Za-z0-9_.:/-]")


def write_android(folder: Path, built: Built, settings: Settings, samples: Sequence[Sample], emulation: Path) -> None:
    """Write scripts, snippets and golden vectors.

    Names come from the model file, which nobody vouches for: what could end a string or a shell word is replaced.

    """
    golden = folder / "golden"
    inputs, outputs = built.ports
    expected = emulate(emulation, [_as_stored(sample, inputs) for sample in samples])
    write_inputs(golden, samples, inputs, f"{DEVICE_FOLDER}/golden")
    for index, result in enumerate(expected):
        for position, port in enumerate(outputs):
            np.ascontiguousarray(result[port.name]).tofile(golden / f"expected_{index}_{position}.raw")
    environment = Environment(
        loader=PackageLoader("edgedeploy.exporters.snpe.android", package_path=""),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values: dict[str, Any] = {
        "inputs": [_described(port, index) for index, port in enumerate(inputs)],
        "outputs": [_described(port, index) for index, port in enumerate(outputs)],
        "arch": settings.hexagon.arch,
        "runtime": built.proof.runtime if built.proof else "",
        "soc": built.proof.soc if built.proof else "",
        "context_binary": built.compiled.context_binary.name if built.compiled else "",
        "device_folder": DEVICE_FOLDER,
        "samples": len(samples),
        "has_dlc": built.dlc is not None,
        "cpu_nodes": [
            f"{_UNSAFE.sub('_', node.name)} ({_UNSAFE.sub('_', node.op_type)})"
            for node in (built.compiled.cpu_nodes if built.compiled else ())
        ],
    }
    for name, template in FILES.items():
        if built.dlc is not None or template not in FOR_DLC:
            (folder / name).write_text(environment.get_template(template).render(values))
    if built.dlc is not None:
        (folder / "run_on_device.sh").chmod(0o755)


def _as_stored(sample: Sample, inputs: Sequence[Any]) -> dict[str, Any]:
    return {port.name: stored(sample[port.name], port) for port in inputs}


def _described(port: Any, index: int) -> dict[str, Any]:
    return {
        "name": _UNSAFE.sub("_", port.name),
        "index": index,
        "shape": port.shape,
        "elements": int(np.prod(port.shape, dtype=np.int64)),
        "bytes": int(np.prod(port.shape, dtype=np.int64)) * np.dtype(port.dtype).itemsize,
        "dtype": port.dtype,
        "scale": port.scale,
        "zero_point": port.zero_point,
    }
