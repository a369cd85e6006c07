"""What a trick would run: it creates the canary."""

from __future__ import annotations

import io
import os
from pathlib import Path

import torch


class Touch:
    """Unpickling this creates the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.canary}",)


def protocol_0(canary: Path) -> bytes:
    """A pickle of letters only, which does not begin as newer ones do."""
    return f"cos\nsystem\n(S'touch {canary}'\ntR.".encode()


def saved(canary: Path) -> bytes:
    """What torch.save makes of it."""
    file = io.BytesIO()
    torch.save(Touch(canary), file)
    return file.getvalue()


def old_save(canary: Path) -> bytes:
    """What torch.save made of it before torch 1.6: five pickles, then bytes."""
    file = io.BytesIO()
    torch.save(Touch(canary), file, _use_new_zipfile_serialization=False)
    return file.getvalue()
