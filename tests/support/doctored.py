"""Model files with something hostile inside: each would leave a marker file if it ran."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn


class Touch:
    """Unpickling this creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def hostile_pickle(marker: Path) -> bytes:
    """A plain pickle that runs a shell command."""
    return pickle.dumps(Touch(marker))


def hostile_zip(marker: Path) -> bytes:
    """What torch.save makes of an object that runs a shell command."""
    buffer = io.BytesIO()
    torch.save(Touch(marker), buffer)
    return buffer.getvalue()


def small_net() -> nn.Module:
    """Conv, batch norm with statistics, ReLU; input (n, 1, 8, 8)."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    net[1].running_mean.uniform_(-1, 1)
    net[1].running_var.uniform_(0.5, 2)
    return net.eval()


def save_pt2(path: Path, dynamic: bool = False, batch: int = 1) -> Path:
    """A genuine .pt2 of ``small_net``, whatever ``path``'s suffix."""
    size = max(batch, 2) if dynamic else batch
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    program = torch.export.export(small_net(), (torch.randn(size, 1, 8, 8),), dynamic_shapes=shapes)
    with path.open("wb") as file:
        torch.export.save(program, file)
    return path


def rewrite(source: Path, target: Path, edit: Callable[[str, bytes], bytes | None], **added: bytes) -> Path:
    """Copy a zip archive, each member through ``edit`` (``None`` drops it); ``added`` are new members ("__" is "/")."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            content = edit(name.partition("/")[2], old.read(name))
            if content is not None:
                new.writestr(name, content)
        for name, content in added.items():
            new.writestr(f"{root}/{name.replace('__', '/')}", content)
    return target


def edit_json(member: str, change: Callable[[dict[str, object]], None]) -> Callable[[str, bytes], bytes]:
    """An ``edit`` that changes one JSON member."""

    def edit(name: str, content: bytes) -> bytes:
        if name != member:
            return content
        document = json.loads(content)
        change(document)
        return json.dumps(document).encode()

    return edit
