"""What goes to a device: the bundle's model and cache, and the scripts of the installed package, never the bundle's."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from edgedeploy.errors import InputError
from edgedeploy.exporters.tensorrt.package import (
    BUILD_JSON,
    BUILD_SH,
    CACHE,
    ENGINE,
    FLOAT_MODEL,
    MODEL,
    PY_SOURCES,
    render_build_sh,
)
from edgedeploy.untrusted import read_bytes, read_json

_VERSION = re.compile(r"\d{1,3}(\.\d{1,5}){0,3}|", re.ASCII)


def ship(artefact: Path, folder: Path) -> Path:
    """Lay out in the new ``folder`` what a device needs to build and run ``artefact``, and nothing else.

    Anybody may have made a bundle, and what is shipped is run with the user's rights on the device. So only the files
    that `write_package` makes are taken; the scripts are those of the installed package, and are compared; and every
    value of build.json, which they read, is of the kind that they expect.

    Raises:
        InputError: a script of the bundle is another, or build.json is none.
    """
    config = read_json(artefact / BUILD_JSON, "The bundle's build.json")
    if wrong := next(
        (key for key, fits in _FORM.items() if not (isinstance(config, dict) and _fits(config, key, fits))), ""
    ):
        raise InputError("The bundle's build.json is not what edgedeploy writes.", found=f"its {wrong!r}")
    folder.mkdir(parents=True)
    for name in (MODEL, ENGINE, FLOAT_MODEL, CACHE, BUILD_JSON):
        if (artefact / name).is_file():
            shutil.copyfile(artefact / name, folder / name, follow_symlinks=False)
    package = resources.files("edgedeploy.exporters.tensorrt")
    ours = {name: (package / source).read_bytes() for name, source in PY_SOURCES.items()}
    if not config["prebuilt"]:
        ours[BUILD_SH] = render_build_sh(config)
    for name, content in ours.items():
        if not (artefact / name).is_file() or read_bytes(artefact / name) != content:
            raise InputError(
                f"The bundle's {name} is not the one that this version of edgedeploy makes: it is not run.",
                remedy="Deploy again with this version, or measure with the version that made the bundle.",
            )
        (folder / name).write_bytes(content)
    return folder


def _fits(config: Mapping[str, Any], key: str, fits: Callable[[Any], bool]) -> bool:
    return key in config and fits(config[key])


def _is_port(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("name", "source", "dtype"))


def _are_ports(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_port, value))


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**31 for size in value)


def _are_ranges(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(rows, list) and len(rows) == 3 and all(map(_is_shape, rows)) for rows in value.values()
    )


_FORM: Mapping[str, Callable[[Any], bool]] = {
    "model": lambda value: value == MODEL,
    "engine": lambda value: value == ENGINE,
    "prebuilt": lambda value: isinstance(value, bool),
    "module": lambda value: value in ("tensorrt", "tensorrt_rtx"),
    "tensorrt_version": lambda value: isinstance(value, str) and _VERSION.fullmatch(value) is not None,
    "strongly_typed": lambda value: isinstance(value, bool),
    "flags": lambda value: value in ([], ["FP16"], ["FP16", "INT8"]),
    "legacy": lambda value: value in (None, {"model": FLOAT_MODEL, "cache": CACHE}),
    "ranges": _are_ranges,
    "inputs": _are_ports,
    "outputs": _are_ports,
}
