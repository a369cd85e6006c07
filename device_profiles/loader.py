"""Finds a device profile by name, alias or file, resolves `extends` and applies overrides."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from edgedeploy.device_profiles.schema import BUDGET_KEYS, Budget, DeviceProfile, Quality
from edgedeploy.errors import InputError
from edgedeploy.evidence import Evidence
from edgedeploy.untrusted import check_regular, read_toml, shown

M = TypeVar("M", bound=BaseModel)

FOLDER = Path(__file__).parent

#: Profiles that extend each other in a row.
MOST_ANCESTORS = 16

#: Problems of one file that a message lists.
_MOST_PROBLEMS = 12


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
    profile = validated(DeviceProfile, data, origin)
    if str(target).endswith(".toml"):
        _refuse_shadowing(profile, origin)
    return profile


def load_profiles(names: Sequence[str]) -> tuple[DeviceProfile, ...]:
    """Load every target of a command.

    Raises:
        InputError: none is given, one is unknown, or one is given twice.
    """
    if not names:
        raise InputError("No target is given.", remedy="Name one: --target NAME; `deploy targets` lists them.")
    profiles = tuple(load_profile(name) for name in names)
    repeated = {profile.name for profile in profiles if [item.name for item in profiles].count(profile.name) > 1}
    if repeated:
        raise InputError(f"A target is given twice: {', '.join(sorted(repeated))}.")
    return profiles


def _refuse_shadowing(profile: DeviceProfile, origin: str) -> None:
    """A file of the user's own may not pass for a built-in profile: its bundle would stand under that name."""
    taken = {*builtin_names(), *aliases()} & {name.lower() for name in (profile.name, *profile.device.aliases)}
    if taken:
        raise InputError(
            f"{origin} takes the name of a built-in profile.",
            found=", ".join(sorted(taken)),
            remedy="Give it a name of its own: [device] name.",
        )


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
        proofs_known = [item.value for item in Evidence if item is not Evidence.NONE]
        if value not in proofs_known:
            raise InputError(
                f"--require {text}: {value!r} is not a kind of evidence.",
                remedy=f"Choose one of: {', '.join(proofs_known)}.",
            )
        if not Evidence(value).at_least(changed[key].evidence):
            raise InputError(
                f"--require {text} would lower the evidence that {profile.name} asks for.",
                found=f"{key} takes {changed[key].evidence} there",
                remedy=f"A budget that nobody can prove may stay unverified: --allow-unverified {key}.",
            )
        changed[key] = changed[key].model_copy(update={"evidence": Evidence(value), "required": True})
    for text in allowed:
        key = _full_key(text)
        if key in changed:
            changed[key] = changed[key].model_copy(update={"allow_unverified": True})
        elif key not in (known := (*BUDGET_KEYS, *Quality.model_fields, "state_loop")):
            _known(key, "--allow-unverified", known)
    return profile.model_copy(update={"budget": changed})


def validated(model: type[M], data: Mapping[str, Any], origin: str) -> M:
    """Build a pydantic model; its errors become one `InputError` that names key, value and choices."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{origin} is not valid.", found=_problems(model, error)) from None


def _problems(model: type[BaseModel], error: ValidationError) -> str:
    lines = []
    for problem in error.errors()[:_MOST_PROBLEMS]:
        where = shown(".".join(str(part) for part in problem["loc"]))
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key {where!r}; {_keys_beside(model, problem['loc'])}")
        elif problem["type"] == "missing":
            lines.append(f"key {where!r} is missing")
        else:
            lines.append(f"{where or 'value'} = {repr(problem['input'])[:200]}: {problem['msg']}")
    more = error.error_count() - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more else "")


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
    data, origin = _read(path), f"Profile {shown(path)}"
    if parent := data.get("extends"):
        if not isinstance(parent, str) or len(seen) > MOST_ANCESTORS:
            raise InputError(f"{origin} extends no profile.", found=repr(parent)[:200])
        base_target = str(path.parent / parent) if parent.endswith(".toml") else parent
        base, _ = _resolved(base_target, (*seen, target))
        data = _merge(_nameless(base, origin), data)
    device = data.get("device")
    if isinstance(device, dict) and "name" not in device and target.endswith(".toml"):
        device["name"] = path.stem
    return data, origin


def _nameless(base: dict[str, Any], origin: str) -> dict[str, Any]:
    """A parent's settings without what names it: whoever extends it is another device."""
    device = base.get("device", {})
    if not isinstance(device, dict):
        raise InputError(f"{origin} extends a profile that is not valid.", found=f"device = {device!r}"[:200])
    return {**base, "device": {key: value for key, value in device.items() if key not in ("name", "aliases")}}


def _find(target: str, seen: tuple[str, ...]) -> Path:
    if target.endswith(".toml"):
        path = Path(target)
        check_regular(path, f"The profile file {shown(target)}")
        return path
    name = aliases().get(target.lower(), target.lower())
    if name in builtin_names():
        return FOLDER / f"{name}.toml"
    every = [*builtin_names(), *aliases()]
    near = difflib.get_close_matches(target.lower()[:80], every, n=3, cutoff=0.4)
    raise InputError(
        f"There is no target {shown(target)!r}" + (f" (extended by {seen[-1]})." if seen else "."),
        remedy=(f"Did you mean {', '.join(near)}? " if near else "")
        + "`deploy targets` lists all; a path ending in .toml is read as your own profile.",
    )


def _read(path: Path) -> dict[str, Any]:
    return read_toml(path, f"The profile {shown(path)}")


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
    """``latency``, ``size`` and ``throughput`` stand for ``latency_ms``, ``size_mb`` and ``throughput_per_s``."""
    return next((full for full in BUDGET_KEYS if full.partition("_")[0] == key), key)


def _known(key: str, option: str, known: Sequence[str] = tuple(BUDGET_KEYS)) -> None:
    if key not in known:
        near = difflib.get_close_matches(key[:80], known, n=1)
        raise InputError(
            f"{option}: there is no budget {shown(key)!r}.",
            remedy=f"Did you mean {near[0]!r}?" if near else f"Choose one of: {', '.join(known)}.",
        )
