"""Finds a device profile by name, alias or file, resolves `extends` and applies overrides."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from edgedeploy.device_profiles.schema import BUDGET_KEYS, Budget, DeviceProfile
from edgedeploy.errors import InputError
from edgedeploy.evidence import Evidence

M = TypeVar("M", bound=BaseModel)

FOLDER = Path(__file__).parent


@cache
def builtin_names() -> tuple[str, ...]:
    """Names of the profiles that ship, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


@cache
def aliases() -> dict[str, str]:
    """Profile name by alias ("sm8350" → "snapdragon888")."""
    found: dict[str, str] = {}
    for name in builtin_names():
        for alias in _read(FOLDER / f"{name}.toml").get("device", {}).get("aliases", ()):
            found[alias] = name
    return found


def load_profile(target: str | Path) -> DeviceProfile:
    """Load a profile by name, alias or path of a TOML file.

    Raises:
        InputError: no such profile (the nearest names are suggested), a cycle of `extends`, or a key, value or
            type that the schema does not take.
    """
    data, origin = _resolved(str(target), ())
    data.pop("extends", None)
    return validated(DeviceProfile, data, origin)


def override(
    profile: DeviceProfile, budgets: Sequence[str] = (), proofs: Sequence[str] = (), allowed: Sequence[str] = ()
) -> DeviceProfile:
    """Apply the command line's ``--budget KEY=VALUE``, ``--require KEY=EVIDENCE`` and ``--allow-unverified KEY``.

    A latency may name its statistic: ``latency_ms.p99=10``. A new budget is required; ``KEY=none`` drops one.
    """
    changed = dict(profile.budget)
    for text in budgets:
        key, value = _pair(text, "--budget", "latency_ms=30")
        key, _, statistic = key.partition(".")
        _known(key, "--budget")
        if value.lower() == "none":
            changed.pop(key, None)
            continue
        try:
            limit = float(value)
        except ValueError:
            raise InputError(f"--budget {text}: the limit is not a number.", found=value) from None
        side = "min" if key == "throughput_per_s" else "max"
        previous = changed.get(key)
        fields: dict[str, Any] = {side: limit, "required": True}
        fields["statistic"] = statistic or (previous.statistic if previous else "")
        fields["evidence"] = previous.evidence if previous else Evidence.ESTIMATE
        changed[key] = validated(Budget, fields, f"--budget {text}")
    for text in proofs:
        key, value = _pair(text, "--require", "latency_ms=device")
        key = _full_key(key)
        if key not in changed:
            raise InputError(
                f"--require {text}: the profile sets no budget on {key}.",
                found=f"budgets of {profile.name}: {', '.join(changed) or 'none'}",
                remedy=f"Give one as well: --budget {key}=…",
            )
        if value not in [item.value for item in Evidence]:
            raise InputError(
                f"--require {text}: {value!r} is not a kind of evidence.",
                remedy=f"Choose one of: {', '.join(Evidence)}.",
            )
        changed[key] = changed[key].model_copy(update={"evidence": Evidence(value), "required": True})
    for text in allowed:
        key = _full_key(text)
        if key in changed:
            changed[key] = changed[key].model_copy(update={"required": False})
        elif key not in BUDGET_KEYS and key not in profile.quality.__class__.model_fields:
            _known(key, "--allow-unverified")
    return profile.model_copy(update={"budget": changed})


def validated(model: type[M], data: Mapping[str, Any], origin: str) -> M:
    """Build a pydantic model; its errors become one `InputError` that names key, value and choices."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{origin} is not valid.", found=_problems(model, error)) from None


def _problems(model: type[BaseModel], error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key {where!r}; {_keys_beside(model, problem['loc'])}")
        elif problem["type"] == "missing":
            lines.append(f"key {where!r} is missing")
        else:
            lines.append(f"{where or 'value'} = {problem['input']!r}: {problem['msg']}")
    return "; ".join(lines)


def _keys_beside(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """Say which keys the table takes that holds the unknown key."""
    current: Any = model
    for part in loc[:-1]:
        field = getattr(current, "model_fields", {}).get(str(part))
        annotation = getattr(field, "annotation", None)
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        current = next((item for item in candidates if hasattr(item, "model_fields")), current)
    names = [field.alias or name for name, field in getattr(current, "model_fields", {}).items()]
    near = difflib.get_close_matches(str(loc[-1]), names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(names)}"


def _resolved(target: str, seen: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    if target in seen:
        raise InputError("Profiles extend each other in a circle.", found=" → ".join((*seen, target)))
    path = _find(target, seen)
    data = _read(path)
    if parent := data.get("extends"):
        relative = path.parent / str(parent)
        base_target = str(relative) if str(parent).endswith(".toml") else str(parent)
        base, _ = _resolved(base_target, (*seen, target))
        base.get("device", {}).pop("aliases", None)
        data = _merge(base, data)
    return data, f"Profile {path}"


def _find(target: str, seen: tuple[str, ...]) -> Path:
    if target.endswith(".toml"):
        path = Path(target)
        if not path.is_file():
            raise InputError(f"There is no profile file {target}.")
        return path
    name = aliases().get(target.lower(), target.lower())
    if name in builtin_names():
        return FOLDER / f"{name}.toml"
    every = [*builtin_names(), *aliases()]
    near = difflib.get_close_matches(target.lower(), every, n=3, cutoff=0.4)
    raise InputError(
        f"There is no target {target!r}" + (f" (extended by {seen[-1]})." if seen else "."),
        remedy=(f"Did you mean {', '.join(near)}? " if near else "")
        + "`deploy targets` lists all; a path ending in .toml is read as your own profile.",
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} can't be read as TOML.", found=str(error)) from None


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        # A budget is replaced whole: half an inherited limit would be a trap.
        replace = {"max", "min"} & set(value) if isinstance(value, dict) else set()
        merged[key] = _merge(merged[key], value) if both and not replace else value
    return merged


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key or not value:
        raise InputError(f"{option} {text!r} is not KEY=VALUE.", remedy=f"For example: {option} {example}")
    return key.strip(), value.strip()


def _full_key(key: str) -> str:
    """``latency`` and ``size`` stand for ``latency_ms`` and ``size_mb``."""
    return next((full for full in BUDGET_KEYS if full.rsplit("_", 1)[0] == key), key)


def _known(key: str, option: str) -> None:
    if key not in BUDGET_KEYS:
        near = difflib.get_close_matches(key, BUDGET_KEYS, n=1)
        raise InputError(
            f"{option}: there is no budget {key!r}.",
            remedy=f"Did you mean {near[0]!r}?" if near else f"Choose one of: {', '.join(BUDGET_KEYS)}.",
        )
