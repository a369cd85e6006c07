"""`deploy.toml`: what belongs to the model rather than to the device or the command."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field

from edgedeploy.calibration.preprocessing import Preprocessing
from edgedeploy.device_profiles.loader import validated
from edgedeploy.device_profiles.schema import Quality, Section
from edgedeploy.errors import InputError

FILE_NAME = "deploy.toml"


class ModelSection(Section):
    """The model: its name in bundles, how to build it, what it takes and what its classes are called."""

    name: str = ""
    factory: str = ""
    inputs: tuple[str, ...] = ()
    labels: tuple[str, ...] | str = ()
    author: str = ""
    license: str = ""
    version: str = ""


class DataSection(Section):
    """Where calibration and evaluation data lie, relative to the file; how much of it to use."""

    calibration: str = ""
    evaluation: str = ""
    calibration_samples: int | None = Field(default=None, gt=0)
    evaluation_samples: int | None = Field(default=None, gt=0)


class MetricSection(Section):
    """What the model's outputs mean: which output the labels judge, and of what kind it is."""

    output: str = ""
    kind: Literal["", "classification", "embedding", "regression"] = ""


class Config(Section):
    """The whole file; every table is optional."""

    model: ModelSection = ModelSection()
    preprocessing: dict[str, Preprocessing] = Field(default_factory=dict)
    data: DataSection = DataSection()
    metric: MetricSection = MetricSection()
    quality: Quality = Quality()
    targets: tuple[str, ...] = ()
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)


def load_config(model: Path, named: Path | None) -> tuple[Config, Path]:
    """Read the file named by ``--config``, else the one beside the model, else return an empty one.

    A file that was merely found never names code: a factory or a ``pkg.mod:callable`` in it is refused.

    Returns:
        The config and the folder its relative paths start from.

    Raises:
        InputError: not readable, an unknown key, a value out of range, or code named by a found file.
    """
    path = named or model.parent / FILE_NAME
    if not path.is_file():
        if named:
            raise InputError(f"There is no config file {named}.")
        return Config(), model.parent
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} can't be read as TOML.", found=str(error)) from None
    config = validated(Config, data, str(path))
    if not named:
        _refuse_code(config, path)
    return config, path.parent


def _refuse_code(config: Config, path: Path) -> None:
    named = {
        "model.factory": config.model.factory,
        "data.calibration": config.data.calibration if is_callable_name(config.data.calibration) else "",
        "data.evaluation": config.data.evaluation if is_callable_name(config.data.evaluation) else "",
    }
    for key, value in named.items():
        if value:
            raise InputError(
                f"{path} was found beside the model and names code to run; only a file you name may do that.",
                found=f'{key} = "{value}"',
                remedy=f"If you trust it: --config {path}",
            )


def is_callable_name(source: str) -> bool:
    """True for ``pkg.mod:callable`` (and not for a Windows drive or an existing path)."""
    module, separator, attribute = source.partition(":")
    return bool(separator) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))
