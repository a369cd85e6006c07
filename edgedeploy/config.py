"""`deploy.toml`: what belongs to the model rather than to the device or the command."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from edgedeploy.calibration.preprocessing import Preprocessing
from edgedeploy.device_profiles.loader import validated
from edgedeploy.device_profiles.schema import Quality, Section
from edgedeploy.errors import InputError
from edgedeploy.untrusted import inside, links_out, read_text, read_toml, shown

FILE_NAME = "deploy.toml"


OptionValue = str | int | float | bool


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
    """What the model's outputs mean: which output the labels judge, of what kind it is, and what it may lose.

    Attributes:
        max_drop: the largest drop of the kind's first metric (`edgedeploy.quality.metrics`): of a score, or the growth
            of an error rate, as a fraction; for "regression" the growth of the mean absolute error in spreads.
        top_k: the k of top-k, beside top-1.
        blank, separator: token ids of the CTC blank and of what stands between words.
    """

    output: str = ""
    kind: Literal["", "classification", "segmentation", "text", "embedding", "regression"] = ""
    max_drop: float | None = Field(default=None, ge=0)
    top_k: int = Field(default=5, gt=0)
    blank: int = Field(default=0, ge=0)
    separator: int | None = Field(default=None, ge=0)


class Config(Section):
    """The whole file; every table is optional. ``state`` says which input takes an output at the next step."""

    model: ModelSection = ModelSection()
    preprocessing: dict[str, Preprocessing] = Field(default_factory=dict)
    data: DataSection = DataSection()
    metric: MetricSection = MetricSection()
    quality: Quality = Quality()
    state: dict[str, str] | None = None
    targets: tuple[str, ...] = ()
    options: dict[str, OptionValue | dict[str, OptionValue]] = Field(default_factory=dict)


@dataclass(frozen=True)
class ConfigFile:
    """A deploy.toml and how far it is trusted.

    Attributes:
        config: what it says; empty where there is no file.
        folder: where its relative paths start.
        named: the user named it (``--config``), so it may name code and files anywhere; one that was merely found
            beside a model is a stranger's, and names only what lies in its own folder.
    """

    config: Config
    folder: Path
    named: bool

    def path(self, text: str, key: str) -> Path:
        """The file or folder that ``key`` names; `InputError` where a found file names one outside its folder."""
        if self.named:
            return self.folder / text
        try:
            return inside(self.folder, text, f"{FILE_NAME}: {key}")
        except InputError as error:
            error.remedy = f"If you trust it: --config {shown(self.folder / FILE_NAME)}"
            raise

    def labels(self) -> tuple[str, ...]:
        """Class names: the list, or the lines of the text file that it names.

        Raises:
            InputError: no such file, no text, too large, or a label with control characters.
        """
        named = self.config.model.labels
        if isinstance(named, str):
            path = self.path(named, "model.labels")
            named = tuple(read_text(path, f"The labels file {shown(path)}").splitlines())
        strange = next((label for label in named if not label.isprintable()), None)
        if strange is not None:
            raise InputError("A class label holds control characters.", found=repr(strange)[:200])
        return named

    def data(self, purpose: Literal["calibration", "evaluation"]) -> str | Path | None:
        """The data that ``[data]`` names: a path, or (in a file that the user named) ``pkg.mod:callable``.

        Raises:
            InputError: a found file names code, or a path outside its folder.
        """
        text: str = getattr(self.config.data, purpose)
        if not text:
            return None
        if names_code(text, self.folder):
            if not self.named:
                raise self._code(f"data.{purpose}", text)
            return text
        path = self.path(text, f"data.{purpose}")
        if not self.named:
            refuse_links_out(path, self.folder)
        return path

    def targets(self) -> tuple[str, ...]:
        """Profile names, and profile files by their paths."""
        names = self.config.targets
        return tuple(str(self.path(name, "targets")) if name.endswith(".toml") else name for name in names)

    def refuse_code(self) -> None:
        """Refuse a found file that names code."""
        if self.config.model.factory and not self.named:
            raise self._code("model.factory", self.config.model.factory)

    def _code(self, key: str, value: str) -> InputError:
        path = self.folder / FILE_NAME
        return InputError(
            f"{shown(path)} was found beside the model and names code to run; only a file you name may do that.",
            found=f'{key} = "{value}"',
            remedy=f"If you trust it: --config {shown(path)}",
        )


def load_config(model: Path, named: Path | None) -> ConfigFile:
    """Read the file named by ``--config``, else the one beside the model, else return an empty one.

    Raises:
        InputError: not readable, an unknown key, a value out of range, or code named by a found file.
    """
    path = named or model.parent / FILE_NAME
    if not os.path.lexists(path):
        if named:
            raise InputError(f"There is no config file {shown(named)}.")
        return ConfigFile(Config(), model.parent, named=False)
    found = ConfigFile(validated(Config, read_toml(path), shown(path)), path.parent, named=named is not None)
    found.refuse_code()
    return found


def names_code(source: str, folder: Path) -> bool:
    """True for what would be imported as ``pkg.mod:callable``: whatever has a colon and is no file or folder."""
    try:
        return ":" in source and not (folder / source).exists()
    except (OSError, ValueError):
        return True


def refuse_links_out(path: Path, root: Path) -> None:
    """Refuse data below ``path`` that a link takes from outside ``root``: it would be copied into the bundle."""
    if path.is_dir() and (link := next(links_out(path, root), None)) is not None:
        raise InputError(
            "Data that were merely found beside a model must lie there themselves.",
            found=f"{shown(link)} leads out of {shown(root)}",
            remedy="Name them: --calibration DATA, --eval DATA.",
        )
