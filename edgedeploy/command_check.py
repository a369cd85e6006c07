"""Finds the mistakes in a command that the command alone decides: before anything is loaded or written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgedeploy.backend_options import Form
from edgedeploy.backends import Backend, backend, backends
from edgedeploy.bundle.lock import read_lock
from edgedeploy.calibration.options import CalibrationOptions
from edgedeploy.config import ConfigFile, OptionValue
from edgedeploy.device_profiles.schema import DeviceProfile
from edgedeploy.errors import InputError
from edgedeploy.plain_text import printable
from edgedeploy.request import DeployRequest
from edgedeploy.targets.transports import check_address
from edgedeploy.untrusted import shown

Options = Mapping[str, Mapping[str, str]]
"""Backend options by target name."""

_CODE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_GLOBAL = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def check_loading(request: DeployRequest) -> None:
    """Check how the model is to be loaded, and the method of calibration.

    Raises:
        InputError: ``factory``, ``inputs``, ``allow_globals`` or ``method`` cannot be what they should be.
    """
    from edgedeploy.model.options import parse_input

    for text in request.inputs:
        parse_input(text)
    if request.factory and not _CODE.fullmatch(request.factory):
        raise InputError(
            f"--model {printable(request.factory, limit=200)!r} names nothing to call.",
            remedy="Write PKG.MOD:FUNCTION.",
        )
    for name in request.allow_globals:
        if not _GLOBAL.fullmatch(name):
            raise InputError(
                f"--allow-global {printable(name, limit=200)!r} names no class.", remedy="Write PKG.CLASS."
            )
    CalibrationOptions(method=request.method)


def check_places(request: DeployRequest) -> None:
    """Check the output folder, the cache and the lock.

    Raises:
        InputError: one is not the folder or file that it should be, or no path at all.
    """
    check_folder(request.output, "output folder", "--output")
    if request.cache is not None:
        check_folder(request.cache, "cache folder", "--cache")
    if request.lock is not None:
        read_lock(request.lock)


def check_folder(path: Path, what: str, option: str) -> None:
    """Refuse what neither is a folder nor can become one."""
    remedy = f"Give another folder: {option} DIR"
    for place in (path, *path.parents):
        try:
            place.stat()
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"The {what} {shown(path)} is no folder.", found=reason, remedy=remedy) from None
        if not place.is_dir():
            raise InputError(f"The {what} {shown(place)} is a file.", remedy=remedy)
        return


def check_targets(request: DeployRequest, profiles: Sequence[DeviceProfile], options: Options) -> None:
    """Check candidate, device address and options against each target's backend.

    Raises:
        InputError: naming the target and what its backend takes.
    """
    for profile in profiles:
        entry = backend(profile.device.backend)
        if request.candidate is not None and entry.candidates and request.candidate not in entry.candidates:
            asked = printable(request.candidate, limit=200)
            raise InputError(
                f"{profile.name}: its backend {entry.name} has no candidate {asked!r}.",
                remedy=f"Choose one of: {', '.join(entry.candidates)}.",
            )
        if request.device and entry.devices is not None:
            check_address(request.device, entry.devices, profile.name)
        entry.check_options(profile, options[profile.name])


def target_options(request: DeployRequest, file: ConfigFile, profiles: Sequence[DeviceProfile]) -> Options:
    """Each target's backend options: ``-O`` over deploy.toml's ``[options.TARGET]`` over its ``[options]``.

    An option goes to every target whose backend knows it; ``TARGET:KEY`` goes to that target alone. What the model's
    table says of author, license and version goes to the backends that write it into their artefacts.

    Raises:
        InputError: an option that no target of the command takes, or one for a target that the command does not have.
    """
    found: dict[str, dict[str, str]] = {profile.name: {} for profile in profiles}
    entries = {profile.name: backend(profile.device.backend) for profile in profiles}
    model = file.config.model
    for key, value in (("author", model.author), ("license", model.license), ("version", model.version)):
        for name, entry in entries.items():
            if value and _knows(entry, key):
                found[name][key] = value
    shared = {key: value for key, value in file.config.options.items() if not isinstance(value, Mapping)}
    texts = {key: _text(file, entries, key, value) for key, value in shared.items()}
    _spread(found, entries, texts, profiles, elsewhere=True)
    for target, table in file.config.options.items():
        if isinstance(table, Mapping):
            texts = {f"{target}:{key}": _text(file, entries, key, value) for key, value in table.items()}
            _spread(found, entries, texts, profiles, elsewhere=True)
    _spread(found, entries, request.options, profiles)
    return found


def _spread(
    found: dict[str, dict[str, str]],
    entries: Mapping[str, Backend],
    given: Mapping[str, str],
    profiles: Sequence[DeviceProfile],
    *,
    elsewhere: bool = False,
) -> None:
    """Give options to the targets that take them.

    Args:
        elsewhere: they stand in deploy.toml, so those for targets that this command leaves out are no mistake.
    """
    called = {name.lower(): profile.name for profile in profiles for name in (profile.name, *profile.device.aliases)}
    for text, value in given.items():
        target, colon, key = text.rpartition(":")
        if colon:
            name = called.get(target.lower())
            if name is None and not elsewhere:
                raise InputError(
                    f"Option {printable(text, limit=200)} is for a target that the command does not have.",
                    found=f"targets: {', '.join(found)}",
                )
            if name is not None:
                found[name][key] = value
            continue
        takers = [name for name, entry in entries.items() if _knows(entry, key) or not entry.options]
        if not takers and not (elsewhere and any(_knows(entry, key) for entry in backends().values())):
            known = {option.key for entry in entries.values() for option in entry.load_options()}
            raise InputError(
                f"No target of this command has an option {printable(key, limit=200)!r}.",
                found=f"targets: {', '.join(found)}",
                remedy=f"Choose from: {', '.join(sorted(known)) or 'none'}; `deploy targets NAME` explains them.",
            )
        for name in takers:
            found[name][key] = value


def _knows(entry: Backend, key: str) -> bool:
    return any(option.takes(key) for option in entry.load_options())


def _text(file: ConfigFile, entries: Mapping[str, Backend], key: str, value: OptionValue) -> str:
    """An option of deploy.toml as text; a file that it names is held to where the config may read."""
    options = (option for entry in entries.values() for option in entry.load_options())
    if any(option.takes(key) and option.form is Form.FILE for option in options):
        return str(file.path(str(value), f"options.{key}"))
    return str(value)
