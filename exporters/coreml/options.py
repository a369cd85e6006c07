"""The options a user may give this backend, checked once and kept as plain data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgedeploy.backend_options import Form, Option, read
from edgedeploy.device_profiles.schema import DeviceProfile
from edgedeploy.errors import InputError
from edgedeploy.untrusted import read_text

#: Weight formats and the first deployment target (iOS number) that runs each.
WEIGHTS: dict[str, int] = {
    "float16": 15,
    "float32": 15,
    "int8": 16,
    "palette8": 16,
    "palette6": 16,
    "palette4": 16,
    "palette2": 16,
    "int4": 18,
}
_ACTIVATIONS = {"float16": 15, "int8": 17}
_COLORS = {"RGB": 3, "BGR": 3, "GRAYSCALE": 1}

#: macOS releases by the iOS release whose ops they share (coremltools ``AvailableTarget``).
_MACOS = {12: 15, 13: 16, 14: 17, 15: 18, 26: 26}

OPTIONS: tuple[Option, ...] = (
    Option("weights", f"number format of the weights, one of {', '.join(WEIGHTS)}"),
    Option("activations", f"number format of the activations, one of {', '.join(_ACTIVATIONS)}"),
    Option("image", "name of the input that becomes an image"),
    Option("mean", "pixel value per channel that the model takes for 0, e.g. 127 or 123.7,116.3,103.5"),
    Option("std", "pixel values per unit, e.g. 128 or 58.4,57.1,57.4"),
    Option("color", f"one of {', '.join(_COLORS)}"),
    Option("labels", "text file with one class label a line", Form.FILE),
    Option("batch", "range of batch sizes, e.g. 1..8"),
    Option("author", "who made the model; deploy.toml's [model] author otherwise"),
    Option("license", "its licence; deploy.toml's [model] license otherwise"),
    Option("version", "its version; deploy.toml's [model] version otherwise"),
    Option("description", "what it does"),
)
_MEANING = {option.key: option.meaning for option in OPTIONS}


@dataclass(frozen=True)
class ImageInput:
    """An input that takes pixels: model value = (pixel - mean) / std, pixel in 0 to 255."""

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    color: str


@dataclass(frozen=True)
class CoreMlOptions:
    """Checked options.

    Attributes:
        target: deployment target as coremltools names it ("iOS17", "macOS14").
        weights, activations: number formats.
        image: the input that becomes an image, if any.
        labels: class labels, empty for a model that is not a classifier.
        batch: smallest and largest batch where it is flexible.
        metadata: author, license, version and description, as far as given.
    """

    target: str
    weights: str = "float16"
    activations: str = "float16"
    image: ImageInput | None = None
    labels: tuple[str, ...] = ()
    batch: tuple[int, int] | None = None
    metadata: tuple[tuple[str, str], ...] = ()


def read_options(profile: DeviceProfile, given: Mapping[str, str]) -> CoreMlOptions:
    """Merge the profile's options with the user's, who wins.

    Raises:
        InputError: an unknown option, a value out of its set, or one that the deployment target is too old for.
    """
    merged = read(OPTIONS, "Core ML", profile, given)
    target = profile.hardware.deployment_target or "iOS16"
    release = _release(target)
    weights = _choice(merged, "weights", profile.quantization.scheme or "float16", WEIGHTS)
    activations = _choice(merged, "activations", "float16", _ACTIVATIONS)
    for option, value, needed in (
        ("weights", weights, WEIGHTS[weights]),
        ("activations", activations, _ACTIVATIONS[activations]),
    ):
        if release < needed:
            raise InputError(
                f"{option}={value} needs iOS {needed} or newer.",
                found=f"deployment target {target} of profile {profile.name!r}",
                remedy="Raise hardware.deployment_target in a profile of your own, or choose another format.",
            )
    batch = _batch(merged["batch"]) if "batch" in merged else (1, 32) if profile.quantization.dynamic_batch else None
    metadata = tuple((key, merged[key]) for key in ("author", "license", "version", "description") if key in merged)
    labels = _labels(Path(merged["labels"])) if "labels" in merged else ()
    return CoreMlOptions(target, weights, activations, _image(merged), labels, batch, metadata)


def _release(target: str) -> int:
    """The iOS number of a deployment target."""
    match = re.fullmatch(r"(iOS|macOS)([0-9]{1,3})", target)
    release = 0
    if match:
        number = int(match[2])
        release = number if match[1] == "iOS" else _MACOS.get(number, 0)
    if release not in _MACOS.values():
        raise InputError(
            f"{target!r} is not a deployment target for ML programs.",
            remedy="Choose iOS15 to iOS18 or macOS12 to macOS15.",
        )
    return release


def _choice(given: Mapping[str, str], key: str, default: str, choices: Mapping[str, int]) -> str:
    value = given.get(key, default)
    if value not in choices:
        raise InputError(f"{key}={value} is not a format of Core ML.", remedy=f"Choose one of: {', '.join(choices)}.")
    return value


def _batch(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,9})\.\.([0-9]{1,9})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"batch={text} is not a range.", remedy="Write it as batch=1..8.")
    return int(match[1]), int(match[2])


def _image(given: Mapping[str, str]) -> ImageInput | None:
    name = given.get("image", "")
    if not name:
        stray = [key for key in ("mean", "std", "color") if key in given]
        if stray:
            raise InputError(f"{', '.join(stray)}: there is no image input.", remedy="Add image=NAME.")
        return None
    color = given.get("color", "RGB")
    if color not in _COLORS:
        raise InputError(f"color={color} is not a colour layout.", remedy=f"Choose one of: {', '.join(_COLORS)}.")
    channels = _COLORS[color]
    mean, std = (_numbers(given, key, default, channels) for key, default in (("mean", 0.0), ("std", 1.0)))
    if min(std) <= 0:
        raise InputError(f"std={given['std']} has a value that is not positive.")
    return ImageInput(name, mean, std, color)


def _numbers(given: Mapping[str, str], key: str, default: float, count: int) -> tuple[float, ...]:
    try:
        values = tuple(float(word) for word in given[key].split(",")) if key in given else (default,)
    except ValueError:
        raise InputError(f"{key}={given[key]} is not a list of numbers.", remedy=_MEANING[key]) from None
    if len(values) not in (1, count):
        raise InputError(f"{key} has {len(values)} values for {count} channels.", remedy=_MEANING[key])
    return values * (count // len(values))


def _labels(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise InputError("The file of class labels is missing.", found=str(path))
    labels = tuple(read_text(path, f"The file of class labels {path}").splitlines())
    if not labels or len(set(labels)) != len(labels) or "" in labels:
        raise InputError("Class labels must be distinct and not empty, one a line.", found=str(path))
    return labels
