"""`deploy.lock`: which candidate was chosen, so that the next build repeats the choice without timing anything."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from edgedeploy.bundle.manifest import CandidateRecord
from edgedeploy.errors import InputError
from edgedeploy.untrusted import read_json

FILE_NAME = "deploy.lock"


@dataclass(frozen=True)
class Lock:
    """The choice and what it was made for; ``key`` binds graph, profile, data, options and version."""

    key: str
    candidate: str
    candidates: tuple[CandidateRecord, ...]

    def to_json(self) -> bytes:
        """Serialize."""
        data = {
            "format": 1,
            "key": self.key,
            "candidate": self.candidate,
            "candidates": [record.model_dump() for record in self.candidates],
        }
        return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()


def lock_key(*parts: str) -> str:
    """Bind the parts into one key."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_lock(path: Path) -> Lock:
    """Read a lock file.

    Raises:
        InputError: not a lock file.
    """
    try:
        data = read_json(path)
        records = tuple(CandidateRecord.model_validate(item) for item in data["candidates"])
        return Lock(str(data["key"]), str(data["candidate"]), records)
    except (InputError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a lock file of this version.", found=str(error)[:200], remedy="Delete it to choose anew."
        ) from None


def find_lock(named: Path | None, beside: Path, existing: Path, key: str) -> tuple[Lock | None, str]:
    """Find the lock that applies: the named one, else one beside the model, else the previous bundle's.

    Returns:
        The lock or ``None``, and a note where one was found but belongs to something else.

    Raises:
        InputError: the named lock does not exist, or was made for something else.
    """
    if named:
        lock = read_lock(named)
        if lock.key != key:
            raise InputError(
                f"{named} was made for another model, data, profile or version.",
                remedy="Leave --lock away to choose anew; the new bundle holds the new lock.",
            )
        return lock, ""
    note = ""
    for path in (beside / FILE_NAME, existing / FILE_NAME):
        if path.is_file():
            lock = read_lock(path)
            if lock.key == key:
                return lock, ""
            note = f"{path} was made for another model, data, profile or version: choosing anew"
    return None, note
