"""The model as Core ML sees it: float32 and int32 inputs, pixels where asked, a flat tuple of outputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from edgedeploy.exporters.coreml.options import CoreMlOptions, ImageInput
from edgedeploy.tensors import Contract, PortSpec, TensorSpec

#: Words of the MIL language, which cannot name a value (coremltools ``NameSanitizer``).
_RESERVED = frozenset({
    "any", "bool", "program", "func", "tensor", "list", "dict", "tuple", "true", "false", "string", "bf16", "fp16",
    "fp32", "fp64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "state",
})  # fmt: skip

_FLOATS = frozenset({"float16", "float32", "float64"})


@dataclass(frozen=True)
class PixelScale:
    """Core ML's own pixel arithmetic, value = scale * pixel + bias, with the scalar scale it has room for."""

    scale: float
    bias: tuple[float, ...]


def pixel_scale(image: ImageInput) -> PixelScale:
    """What Core ML applies before the model: the first channel's std; others are folded into the model."""
    scale = 1.0 / image.std[0]
    return PixelScale(scale, tuple(-mean * scale for mean in image.mean))


class Boundary(nn.Module):
    """Wraps a module: converts Core ML's input types to the model's own and flattens what it returns.

    Args:
        module: the model.
        inputs: its inputs in order, with their own dtypes.
        bind: puts values, in that order, where ``forward`` wants them.
        image: the input that arrives as pixels; its std per channel, relative to the first, is applied here.
    """

    ratio: torch.Tensor

    def __init__(
        self,
        module: nn.Module,
        inputs: Sequence[TensorSpec],
        bind: Callable[[Sequence[Any]], tuple[tuple[Any, ...], dict[str, Any]]],
        image: ImageInput | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        # Not .eval(): a loaded exported program refuses it, and the loader has put everything else into eval mode.
        self.training = False
        self._dtypes = [getattr(torch, spec.dtype) for spec in inputs]
        self._bind = bind
        self._image_position = -1
        if image is not None and len(set(image.std)) > 1:
            self._image_position = [spec.name for spec in inputs].index(image.name)
            ratio = torch.tensor([image.std[0] / std for std in image.std]).reshape(1, -1, 1, 1)
            self.register_buffer("ratio", ratio, persistent=False)

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the model on Core ML's types."""
        converted = []
        for position, (given, dtype) in enumerate(zip(values, self._dtypes, strict=True)):
            value = given * self.ratio if position == self._image_position else given
            if dtype == torch.bool:
                converted.append(value != 0)
            else:
                converted.append(value if value.dtype == dtype else value.to(dtype))
        args, kwargs = self._bind(converted)
        leaves = [leaf for leaf in pytree.tree_leaves(self.module(*args, **kwargs)) if isinstance(leaf, torch.Tensor)]
        return tuple(leaf.to(torch.int32) if leaf.dtype == torch.bool else leaf for leaf in leaves)


def example_inputs(inputs: Sequence[TensorSpec]) -> tuple[torch.Tensor, ...]:
    """Values of Core ML's types to trace with: normal floats, ones for integers (which index an embedding)."""
    generator = torch.Generator().manual_seed(0)
    values = []
    for spec in inputs:
        sizes = [size if isinstance(size, int) else 1 for size in spec.shape]
        if spec.dtype in _FLOATS:
            values.append(torch.randn(sizes, generator=generator))
        else:
            values.append(torch.ones(sizes, dtype=torch.int32))
    return tuple(values)


def contract(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], options: CoreMlOptions) -> Contract:
    """Core ML's names and types for the captured inputs and outputs."""
    names = _unique([*(spec.name for spec in inputs), *(spec.name for spec in outputs)])

    def port(spec: TensorSpec, name: str) -> PortSpec:
        is_image = options.image is not None and spec.name == options.image.name
        shape = spec.shape
        if options.batch and shape and shape[0] in (1, "batch"):
            shape = ("batch", *shape[1:])
        layout = "NCHW" if is_image else ""
        return PortSpec(spec.name, name, shape, "uint8" if is_image else _core_ml_dtype(spec.dtype), layout=layout)

    ports = [port(spec, name) for spec, name in zip([*inputs, *outputs], names, strict=True)]
    return Contract(tuple(ports[: len(inputs)]), tuple(ports[len(inputs) :]))


def _core_ml_dtype(dtype: str) -> str:
    return "float32" if dtype in _FLOATS else "int32"


def _unique(names: Iterable[str]) -> list[str]:
    """Names that Core ML and Swift take as identifiers, each used once."""
    taken: set[str] = set()
    result = []
    for name in names:
        word = re.sub(r"\W", "_", name, flags=re.ASCII) or "value"
        word = f"value{word}" if word[0].isdigit() or word[0] == "_" else word
        word = f"{word}_value" if word in _RESERVED else word
        stem, count = word, 1
        while word in taken:
            count += 1
            word = f"{stem}_{count}"
        taken.add(word)
        result.append(word)
    return result
