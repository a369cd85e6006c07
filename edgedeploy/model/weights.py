"""Weights without an architecture: state_dict, checkpoint and safetensors files, and the factory that they fit."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.errors import InputError

if TYPE_CHECKING:
    import torch

#: Where training scripts put the weights in a checkpoint, the likeliest first.
_NESTED = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
#: What DataParallel and torch.compile put before every key.
_WRAPPERS = ("module.", "_orig_mod.")
_SHOWN = 6


def find_state_dict(path: Path, content: Any) -> dict[str, Any]:
    """Find the weights in what a checkpoint holds: tensors by name, at the top or one or two levels down.

    Raises:
        InputError: where there are none, with what is there.
    """
    candidate = content
    for _ in range(3):
        if not isinstance(candidate, Mapping):
            break
        if _is_state_dict(candidate):
            check_plain(path, candidate)
            return dict(candidate)
        nested = next((key for key in _NESTED if isinstance(candidate.get(key), Mapping)), None)
        if nested is None:
            break
        candidate = candidate[nested]
    if isinstance(content, Mapping):
        found = f"a dict with the keys {', '.join(map(str, list(content)[:10])) or '(none)'}"
    else:
        found = f"a {type(content).__module__}.{type(content).__qualname__}"
    raise InputError(
        f"There are no weights in {str(path)!r}.",
        found=found,
        remedy=f"Save model.state_dict(), or a dict with it under {_NESTED[0]!r} or {_NESTED[2]!r}.",
    )


def check_plain(path: Path, weights: Mapping[Any, Any]) -> None:
    """Demand tensors that hold their values, by names that are texts.

    Raises:
        InputError: naming the first sparse, nested, quantized or empty-shelled (meta) tensor, or the key that is none.
    """
    import torch

    for name, value in weights.items():
        wrong = ""
        if not isinstance(name, str):
            wrong = f"the key {str(name)[:80]!r} is a {type(name).__name__}, not a name"
        elif isinstance(value, torch.Tensor):
            what = [
                word
                for word, holds in (
                    ("nested", value.is_nested),
                    (f"of the layout {value.layout}", value.layout is not torch.strided),
                    ("without values (meta)", value.is_meta),
                    ("quantized", value.is_quantized),
                    (f"a {type(value).__name__}", type(value) not in (torch.Tensor, torch.nn.Parameter)),
                )
                if holds
            ]
            wrong = f"tensor {name[:80]!r} is {what[0]}" if what else ""
        if wrong:
            raise InputError(
                f"The weights in {str(path)!r} are not plain tensors by name.",
                found=wrong,
                remedy="Save model.state_dict() of a model with plain tensors.",
            )


def read_safetensors(path: Path) -> dict[str, Any]:
    """Read a safetensors file, which cannot hold code.

    Raises:
        InputError: where it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError, MemoryError, RuntimeError) as error:
        raise InputError(
            f"The safetensors file {str(path)!r} is damaged.", found=str(error), remedy="Copy or download it again."
        ) from error


def build(factory: str) -> torch.nn.Module:
    """Import ``pkg.mod:callable`` (the current folder counts) and call it; naming it is the user's word for its code.

    Raises:
        InputError: where it cannot be imported or called, or gives no ``torch.nn.Module``.
    """
    import torch

    wrong = f"--model {factory!r} gives no model."
    module_name, separator, attribute = factory.partition(":")
    if not separator or not module_name or not attribute:
        raise InputError(wrong, found="no ':'", remedy="Write package.module:callable, e.g. mynet.models:resnet50.")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        target: Any = importlib.import_module(module_name)
    except Exception as error:
        raise InputError(
            wrong,
            found=f"importing {module_name!r} raised {type(error).__name__}: {error}",
            remedy=f"Install the package, or run the command in the folder that holds it (now {folder}).",
        ) from error
    finally:
        sys.path.remove(folder)
    for word in attribute.split("."):
        if not hasattr(target, word):
            names = sorted(name for name, value in vars(target).items() if callable(value) and not name.startswith("_"))
            raise InputError(
                wrong,
                found=f"{module_name!r} has no {attribute!r}",
                remedy=f"Callables there: {', '.join(names[:20]) or '(none)'}.",
            )
        target = getattr(target, word)
    if not callable(target):
        raise InputError(wrong, found=f"{attribute!r} is a {type(target).__name__}", remedy="Name a function or class.")
    try:
        model = target()
    except Exception as error:
        raise InputError(
            wrong,
            found=f"calling it without arguments raised {type(error).__name__}: {error}",
            remedy="Write a function of no arguments that builds the model as it was trained.",
        ) from error
    if not isinstance(model, torch.nn.Module):
        raise InputError(wrong, found=f"it returned a {type(model).__name__}", remedy="Return a torch.nn.Module.")
    return model


def fit(path: Path, model: torch.nn.Module, weights: dict[str, Any]) -> str:
    """Put the weights into the model, every key of both used.

    Returns:
        A note where a wrapper's prefix was taken off the keys, else "".

    Raises:
        InputError: listing missing, unexpected and mismatched keys.
    """
    wanted = model.state_dict()
    note = ""
    for prefix in _WRAPPERS:
        if all(key.startswith(prefix) for key in weights) and not any(key.startswith(prefix) for key in wanted):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
            note = f"the prefix {prefix!r} was taken off every key of the weights"
    missing = [key for key in wanted if key not in weights]
    unexpected = [key for key in weights if key not in wanted]
    mismatched = [
        f"{key} is {tuple(weights[key].shape)} in the file and {tuple(value.shape)} in the model"
        for key, value in wanted.items()
        if key in weights and hasattr(value, "shape") and getattr(weights[key], "shape", None) != value.shape
    ]
    problems = (("missing", missing), ("unexpected", unexpected), ("mismatched", mismatched))
    found = "; ".join(f"{len(keys)} {what}: {_some(keys)}" for what, keys in problems if keys)
    if not found:
        try:
            # assign: the file's tensors become the model's, without a second copy in memory.
            model.load_state_dict(weights, strict=True, assign=True)
        except Exception as error:
            found = f"{type(error).__name__}: {str(error)[:300]}"
    if found:
        raise InputError(
            f"The weights in {str(path)!r} do not fit the model that --model builds.",
            found=found,
            remedy="Build the model with the same classes and sizes as in training.",
        )
    return note


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    import torch

    tensors = sum(isinstance(value, torch.Tensor) for value in content.values())
    states = sum(str(key).endswith("_extra_state") for key in content)
    return tensors > 0 and tensors + states >= len(content)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
