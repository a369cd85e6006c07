"""Stable names for the tensors that a model returns, however they are nested."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any


def output_names(tree: Any, taken: Iterable[str] = ()) -> list[str]:
    """Name each leaf of a returned structure, in the order in which torch flattens it.

    A single tensor is ``output``; a tuple gives ``output_0`` ...; a dict or a model output gives its keys;
    nested ones are joined with ``_``. A name in ``taken`` (the inputs) or used before gets ``_out`` or a number.
    """
    from torch.utils import _pytree as pytree

    try:
        paths: Sequence[tuple[Any, ...]] = [path for path, _ in pytree.tree_flatten_with_path(tree)[0]]
    except (ValueError, NotImplementedError):  # a registered class that does not name its fields
        count = len(pytree.tree_leaves(tree))
        paths = [() if count == 1 else (pytree.SequenceKey(index),) for index in range(count)]
    used = set(taken)
    names = []
    for path in paths:
        words = [re.sub(r"\W", "_", _word(key)) for key in path]
        name = "_".join(words) or "output"
        if name[0].isdigit():
            name = f"output_{name}"
        if name in used:
            name += "_out"
        stem, count = name, 1
        while name in used:
            count += 1
            name = f"{stem}_{count}"
        used.add(name)
        names.append(name)
    return names


def _word(key: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def distinct_outputs(inputs: Iterable[str], outputs: Iterable[str]) -> tuple[str, ...]:
    """One name for every output of an ONNX file, which may list an input, or one tensor twice, among them.

    Such a name gets ``_out``, then a number.
    """
    used = set(inputs)
    names = []
    for output in outputs:
        name, count = output, 0
        while name in used:
            count += 1
            name = f"{output}_out" if count == 1 else f"{output}_out_{count}"
        used.add(name)
        names.append(name)
    return tuple(names)
