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
    from collections.abc import Callable, Mapping

    from edgedeploy.backend_options import Option
    from edgedeploy.device_profiles.schema import DeviceProfile
    from edgedeploy.interfaces import Exporter, Runner


@dataclass(frozen=True)
class Backend:
    """One backend.

    What it declares about its options, candidates and devices lets a mistake in a command be found before anything is
    loaded; a backend that declares nothing finds it itself, later.

    Attributes:
        exporter, runner: ``module:Class``.
        extra: its pip extra, "" for none.
        options: ``module:OPTIONS``, a tuple of `edgedeploy.backend_options.Option`; "" where it declares none.
        settings: ``module:function`` that reads a profile and the options given for it, and raises `InputError` for
            what does not go together; "" for none.
        candidates: every name that ``--candidate`` may ask for; empty where it declares none.
        devices: kinds of ``--device`` address that its runner takes ("local", "ssh", "adb", "serial"); ``None`` where
            it declares nothing.
    """

    name: str
    exporter: str
    runner: str
    extra: str = ""
    options: str = ""
    settings: str = ""
    candidates: tuple[str, ...] = ()
    devices: tuple[str, ...] | None = None

    def load_exporter(self) -> Exporter:
        """Import and construct the exporter."""
        return cast("Exporter", _construct(self.exporter))

    def load_runner(self) -> Runner:
        """Import and construct the runner."""
        return cast("Runner", _construct(self.runner))

    def load_options(self) -> tuple[Option, ...]:
        """What it lets a user choose; empty where it declares nothing."""
        return cast("tuple[Option, ...]", _attribute(self.options)) if self.options else ()

    def check_options(self, profile: DeviceProfile, given: Mapping[str, str]) -> None:
        """Raise `InputError` for options that this backend does not take for this profile."""
        if self.settings:
            cast("Callable[[DeviceProfile, Mapping[str, str]], object]", _attribute(self.settings))(profile, given)


_TENSORRT_CANDIDATES = (
    *(
        f"int8{part}{cure}"
        for part in ("", "-depthwise", "-attention", "-large")
        for cure in ("", "-gentle", "-gentler")
    ),
    "float16",
)
_COREML_CANDIDATES = tuple(
    f"{route}-{precision}"
    for route in ("trace", "program")
    for precision in ("float16", "float16-keep-float32", "float32")
)

BUILT_IN: tuple[Backend, ...] = (
    Backend(
        "onnxruntime",
        "edgedeploy.exporters.onnxruntime.exporter:OnnxRuntimeExporter",
        "edgedeploy.targets.onnxruntime.runner:OnnxRuntimeRunner",
        options="edgedeploy.exporters.onnxruntime.options:OPTIONS",
        settings="edgedeploy.exporters.onnxruntime.options:read_options",
        candidates=("static-qdq", "static-mixed", "dynamic-int8", "weight-only-int8", "weight-only-int4", "float32"),
        devices=("local", "ssh"),
    ),
    Backend(
        "tensorrt",
        "edgedeploy.exporters.tensorrt.exporter:TensorRtExporter",
        "edgedeploy.targets.tensorrt.runner:TensorRtRunner",
        "tensorrt-rtx",
        options="edgedeploy.exporters.tensorrt.settings:OPTIONS",
        settings="edgedeploy.exporters.tensorrt.settings:read_settings",
        candidates=_TENSORRT_CANDIDATES,
        devices=("local", "ssh"),
    ),
    Backend(
        "coreml",
        "edgedeploy.exporters.coreml.exporter:CoreMlExporter",
        "edgedeploy.targets.coreml.runner:CoreMlRunner",
        "coreml",
        options="edgedeploy.exporters.coreml.options:OPTIONS",
        settings="edgedeploy.exporters.coreml.options:read_options",
        candidates=_COREML_CANDIDATES,
        devices=("local", "ssh"),
    ),
    Backend(
        "snpe",
        "edgedeploy.exporters.snpe.exporter:SnpeExporter",
        "edgedeploy.targets.snpe.runner:SnpeRunner",
        "snapdragon",
        options="edgedeploy.exporters.snpe.settings:OPTIONS",
        settings="edgedeploy.exporters.snpe.settings:settings_of",
        candidates=("a8w8", "mixed", "a16w8"),
        devices=("adb",),
    ),
    Backend(
        "tflite_micro",
        "edgedeploy.exporters.tflite_micro.exporter:TfliteMicroExporter",
        "edgedeploy.targets.tflite_micro.runner:TfliteMicroRunner",
        "tflm",
        options="edgedeploy.exporters.tflite_micro.exporter:OPTIONS",
        settings="edgedeploy.exporters.tflite_micro.exporter:ExportOptions.parse",
        candidates=("int8", "int16x8"),
        devices=("serial",),
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
    return cast("Callable[[], object]", _attribute(path))()


def _attribute(path: str) -> object:
    module, _, attribute = path.partition(":")
    found: object = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found
