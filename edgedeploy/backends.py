"""The table of backends: what each one is made of and which extra brings its vendor packages.

A backend is an exporter, a runner and the profiles that name it. Nothing here imports one: an entry
is loaded when a target needs it, so a missing vendor package costs nothing until then. Third parties
add a `Backend` through the entry-point group ``edgedeploy.backends``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, cast

from edgedeploy.errors import InputError

if TYPE_CHECKING:
    from edgedeploy.interfaces import Exporter, Runner


@dataclass(frozen=True)
class Backend:
    """One backend; ``exporter`` and ``runner`` are ``module:Class``, ``extra`` its pip extra ("" for none)."""

    name: str
    exporter: str
    runner: str
    extra: str = ""

    def load_exporter(self) -> Exporter:
        """Import and construct the exporter."""
        return cast("Exporter", _construct(self.exporter))

    def load_runner(self) -> Runner:
        """Import and construct the runner."""
        return cast("Runner", _construct(self.runner))


BUILT_IN: tuple[Backend, ...] = (
    Backend(
        "onnxruntime",
        "edgedeploy.exporters.onnxruntime.exporter:OnnxRuntimeExporter",
        "edgedeploy.targets.onnxruntime.runner:OnnxRuntimeRunner",
    ),
    Backend(
        "tensorrt",
        "edgedeploy.exporters.tensorrt.exporter:TensorRtExporter",
        "edgedeploy.targets.tensorrt.runner:TensorRtRunner",
        "tensorrt-rtx",
    ),
    Backend(
        "coreml",
        "edgedeploy.exporters.coreml.exporter:CoreMlExporter",
        "edgedeploy.targets.coreml.runner:CoreMlRunner",
        "coreml",
    ),
    Backend(
        "snpe",
        "edgedeploy.exporters.snpe.exporter:SnpeExporter",
        "edgedeploy.targets.snpe.runner:SnpeRunner",
        "snapdragon",
    ),
    Backend(
        "tflite_micro",
        "edgedeploy.exporters.tflite_micro.exporter:TfliteMicroExporter",
        "edgedeploy.targets.tflite_micro.runner:TfliteMicroRunner",
        "tflm",
    ),
)


def backends() -> dict[str, Backend]:
    """Every backend by name, third parties' included; a duplicate name is an error."""
    table = {backend.name: backend for backend in BUILT_IN}
    for point in entry_points(group="edgedeploy.backends"):
        if point.name in table:
            raise InputError(
                f"Two installed backends are named {point.name!r}.",
                found=point.value,
                remedy="Uninstall one of them.",
            )
        table[point.name] = point.load()
    return table


def backend(name: str) -> Backend:
    """Return one backend; `InputError` with the choices where there is none of that name."""
    table = backends()
    if name not in table:
        raise InputError(f"There is no backend {name!r}.", remedy=f"Choose one of: {', '.join(sorted(table))}.")
    return table[name]


def _construct(path: str) -> object:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)()
