"""The weights and constants of a ``.pt2`` archive, read by us: plain bytes become tensors, nothing is unpickled."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.errors import InputError
from edgedeploy.model.archive import damaged
from edgedeploy.model.pickles import load_restricted
from edgedeploy.model.program_text import as_dataclass, is_dotted_name, read_json

if TYPE_CHECKING:
    import torch

_PART = {"weights": re.compile(r"weight_\d{1,7}"), "constants": re.compile(r"tensor_\d{1,7}")}
#: Axes of a tensor in a file; torch itself goes to 64.
_MAX_AXES = 64
#: Values of a constant that repeats itself (stride 0).
_MAX_EXPANDED = 1 << 26


def read_tensors(path: Path, kind: str, table: bytes, read: Callable[[str], bytes]) -> dict[str, Any]:
    """Every tensor of one table, those that share bytes sharing them here too.

    Args:
        path: the archive, for messages.
        kind: "weights" or "constants".
        table: the JSON table of names and parts (``torch._export.serde.schema.PayloadConfig``).
        read: gives the bytes of the part of that name.

    Raises:
        InputError: where an entry is no plain tensor, names another part, or does not fit its bytes.
    """
    from torch import nn
    from torch._export.serde import schema

    member = f"data/{kind}/model_{kind}_config.json"
    entries = as_dataclass(path, member, schema.PayloadConfig, read_json(path, member, table)).config
    if not isinstance(entries, dict):
        raise damaged(path, f"the table {member!r} holds no entries")
    storages: dict[str, torch.Tensor] = {}
    tensors: dict[str, Any] = {}
    for name, entry in entries.items():
        where = f"{kind} entry {str(name)[:80]!r}"
        if not is_dotted_name(name) or not isinstance(entry.path_name, str):
            raise damaged(path, f"{where} is no name")
        if not _PART[kind].fullmatch(entry.path_name):
            raise _refused(path, f"{where} lies in {entry.path_name[:80]!r}, which is no plain tensor")
        if entry.use_pickle is not False:
            tensors[name] = _pickled(path, where, read(entry.path_name))
            continue
        if entry.path_name not in storages:
            storages[entry.path_name] = _bytes_as_tensor(read(entry.path_name))
        tensor = _view(path, where, storages[entry.path_name], entry.tensor_meta)
        trained = entry.tensor_meta.requires_grad is True and (tensor.is_floating_point() or tensor.is_complex())
        tensors[name] = nn.Parameter(tensor, requires_grad=trained) if entry.is_param is True else tensor
    return tensors


def _bytes_as_tensor(content: bytes) -> torch.Tensor:
    import torch

    if not content:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _pickled(path: Path, where: str, content: bytes) -> Any:
    import torch

    value = load_restricted(path, where, io.BytesIO(content))
    if type(value) not in (torch.Tensor, torch.nn.Parameter) or value.layout is not torch.strided or value.is_meta:
        raise _refused(path, f"{where} is a {type(value).__name__}, not a plain tensor")
    return value


def _view(path: Path, where: str, raw: torch.Tensor, meta: Any) -> torch.Tensor:
    import torch
    from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE

    if meta is None or meta.dtype not in _SERIALIZE_TO_TORCH_DTYPE:
        raise damaged(path, f"{where} has no known type")
    dtype = _SERIALIZE_TO_TORCH_DTYPE[meta.dtype]
    sizes, strides = (
        [_number(path, where, size) for size in meta.sizes],
        [_number(path, where, s) for s in meta.strides],
    )
    offset = _number(path, where, meta.storage_offset)
    if len(sizes) != len(strides) or len(sizes) > _MAX_AXES:
        raise damaged(path, f"{where} has {len(sizes)} sizes and {len(strides)} strides")
    if raw.numel() % dtype.itemsize:
        raise damaged(path, f"{where} has {raw.numel():,} bytes, no multiple of its type's {dtype.itemsize}")
    flat = raw.view(dtype)
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if 0 in sizes:
        return torch.empty(sizes, dtype=dtype)
    if math.prod(sizes) > max(flat.numel(), _MAX_EXPANDED):
        raise damaged(path, f"{where} would make {math.prod(sizes):,} values of {flat.numel():,}")
    if last >= flat.numel():
        raise damaged(path, f"{where} needs {last + 1:,} values and its part holds {flat.numel():,}")
    return flat.as_strided(sizes, strides, offset)


def _number(path: Path, where: str, size: Any) -> int:
    if str(getattr(size, "type", "")) != "as_int" or type(size.as_int) is not int or not 0 <= size.as_int < 2**48:
        raise damaged(path, f"{where} has a size, stride or offset that is no plain number")
    return int(size.as_int)


def _refused(path: Path, found: str) -> InputError:
    return InputError(
        f"{str(path)!r} holds something else than tensors; nothing was loaded.",
        found=found,
        remedy="Save a model of plain tensors (torch.export.save); if you trust the file, use --unsafe-load.",
    )
