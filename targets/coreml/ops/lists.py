"""Tensor lists (TensorArray): values are never changed in place."""

from __future__ import annotations

import torch
from torch import Tensor

from edgedeploy.targets.coreml.dtypes import named
from edgedeploy.targets.coreml.registry import TORCH, Call, Results, op


def _items(call: Call) -> list[Tensor | None]:
    value = call.values["ls"]
    if not isinstance(value, TensorList):
        raise call.wrong("its input is not a list")
    return list(value.items)


class TensorList:
    """A list value; an element that was never written is ``None``."""

    def __init__(self, items: list[Tensor | None], *, dynamic: bool) -> None:
        self.items = items
        self.dynamic = dynamic


@op("make_list")
def make_list(call: Call) -> Results:
    """Zeros where the element shape is known, nothing where it is not."""
    sizes = [value for value in call.many("elem_shape") if not isinstance(value, str)]
    known = len(sizes) == len(call.many("elem_shape"))
    shape = [int(value) for size in sizes for value in size.reshape(-1)] if known else []
    kind = TORCH[named(call.text("dtype", "fp32"))]
    length = call.integer("init_length", 1)
    items: list[Tensor | None] = [torch.zeros(shape, dtype=kind) if known else None for _ in range(length)]
    return TensorList(items, dynamic=call.flag("dynamic_length", True))


@op("list_length")
def list_length(call: Call) -> Results:
    """Number of elements."""
    return torch.tensor(len(_items(call)), dtype=torch.int32)


def _place(call: Call, items: list[Tensor | None], index: int, value: Tensor) -> None:
    if index >= len(items):
        if not call.values["ls"].dynamic:
            raise call.wrong(f"index {index} outside a fixed list of {len(items)}")
        items += [None] * (index + 1 - len(items))
    items[index] = value


@op("list_write")
def list_write(call: Call) -> Results:
    """Replace one element; a dynamic list grows."""
    items = _items(call)
    _place(call, items, call.integer("index"), call.raw("value"))
    return TensorList(items, dynamic=call.values["ls"].dynamic)


@op("list_read")
def list_read(call: Call) -> Results:
    """One element."""
    return _written(call, _items(call), call.integer("index"))


@op("list_gather")
def list_gather(call: Call) -> Results:
    """Chosen elements, stacked."""
    items = _items(call)
    return torch.stack([_written(call, items, index) for index in call.integers("indices")])


@op("list_scatter")
def list_scatter(call: Call) -> Results:
    """Replace chosen elements by the slices of a tensor."""
    items = _items(call)
    for index, value in zip(call.integers("indices"), call.raw("value"), strict=True):
        _place(call, items, index, value)
    return TensorList(items, dynamic=call.values["ls"].dynamic)


def _written(call: Call, items: list[Tensor | None], index: int) -> Tensor:
    item = items[index] if -len(items) <= index < len(items) else None
    if item is None:
        raise call.wrong(f"element {index} of a list of {len(items)} was never written")
    return item
