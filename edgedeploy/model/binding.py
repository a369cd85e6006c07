"""How named inputs reach ``forward``."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgedeploy.tensors import TensorSpec

if TYPE_CHECKING:
    import torch

    from edgedeploy.model.torch_source import Arguments, Bind


def bind_positionally(values: Sequence[Any]) -> Arguments:
    """One positional argument per input."""
    return tuple(values), {}


def bind_by_signature(module: torch.nn.Module, inputs: Sequence[TensorSpec]) -> Bind:
    """By keyword where ``forward`` has a parameter of every input's name, else in order."""
    parameters = inspect.signature(module.forward).parameters
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = [spec.name for spec in inputs]
    if not all(name in parameters and parameters[name].kind in by_name for name in names):
        return bind_positionally

    def bind(values: Sequence[Any]) -> Arguments:
        return (), dict(zip(names, values, strict=True))

    return bind
