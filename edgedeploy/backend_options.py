"""`Option`: what a backend lets a user choose, declared once, so that a mistake is found before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from edgedeploy.errors import InputError
from edgedeploy.plain_text import printable

if TYPE_CHECKING:
    from edgedeploy.device_profiles.schema import DeviceProfile

#: A number that a backend option takes is below this.
MOST = 1e6


class Form(StrEnum):
    """What an option's value is."""

    TEXT = "text"
    """Anything; the backend reads it."""
    SWITCH = "true or false"
    NUMBER = "a number of 0 or more"
    FILE = "the path of a file"


@dataclass(frozen=True)
class Option:
    """One option of a backend.

    Attributes:
        key: its name; ``range.*`` stands for every name that begins with ``range.``.
        meaning: one phrase for messages and documentation.
        choices: the words that it takes, where they are few.
    """

    key: str
    meaning: str
    form: Form = Form.TEXT
    choices: tuple[str, ...] = ()

    def takes(self, key: str) -> bool:
        """True where ``key`` is this option's name."""
        stem = self.key.removesuffix("*")
        return key == self.key if stem == self.key else key.startswith(stem) and key != stem

    def checked(self, key: str, value: str) -> str:
        """The value; words in lower case where only some are taken. `InputError` for a wrong one."""
        if self.choices or self.form is Form.SWITCH:
            known, value = self.choices or ("true", "false"), value.lower()
            if value not in known:
                raise self._wrong(key, value, f"It is {' or '.join(known)}: {self.meaning}.")
        if self.form is Form.NUMBER:
            try:
                number = float(value)
            except ValueError:
                number = -1.0
            if not 0 <= number < MOST:
                raise self._wrong(key, value, f"It is {self.form} below {MOST:g}: {self.meaning}.")
        if len(value) > 4096 or not value.isprintable():
            raise self._wrong(key, value, f"It is {self.form}, on one line: {self.meaning}.")
        return value

    def _wrong(self, key: str, value: str, remedy: str) -> InputError:
        return InputError(f"Option {key} cannot be {printable(value, limit=200)!r}.", remedy=remedy)


def read(options: Iterable[Option], backend: str, profile: DeviceProfile, given: Mapping[str, str]) -> dict[str, str]:
    """Merge a profile's options with the user's, who wins, and check every key and value.

    Args:
        options: what the backend declares.
        backend: its name in messages.

    Raises:
        InputError: an unknown option, or a value that it does not take.
    """
    known = tuple(options)
    merged = {**{key: str(value) for key, value in profile.quantization.options.items()}, **given}
    found = {}
    for key, value in merged.items():
        option = next((item for item in known if item.takes(key)), None)
        if option is None:
            raise InputError(
                f"The {backend} backend has no option {printable(key, limit=200)!r}.",
                remedy=f"Choose from: {'; '.join(f'{item.key} ({item.meaning})' for item in known)}.",
            )
        found[key] = option.checked(key, value)
    return found
