"""The table of op kernels, and `Call`: what a kernel sees of the operation it computes.

A kernel gets tensors in a computing type (float16 arrives as float32, small integers as int32) and returns what it
computed; the executor checks it against the declaration and rounds it to the declared type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgedeploy.errors import InputError
from edgedeploy.targets.coreml.program import Block, Operation

#: torch types that hold each MIL type; types below a byte are kept one code a byte.
TORCH: dict[str, torch.dtype] = {
    "bool": torch.bool, "float16": torch.float16, "float32": torch.float32, "float64": torch.float64,
    "int4": torch.int8, "int8": torch.int8, "int16": torch.int16, "int32": torch.int32, "int64": torch.int64,
    "uint1": torch.uint8, "uint2": torch.uint8, "uint3": torch.uint8, "uint4": torch.uint8, "uint6": torch.uint8,
    "uint8": torch.uint8, "uint16": torch.uint16, "uint32": torch.uint32, "uint64": torch.uint64,
}  # fmt: skip

_COMPUTE: dict[torch.dtype, torch.dtype] = {
    torch.float16: torch.float32,
    torch.int8: torch.int32, torch.int16: torch.int32, torch.uint8: torch.int32, torch.uint16: torch.int32,
    torch.uint32: torch.int64, torch.uint64: torch.int64,
}  # fmt: skip

Results = Any
"""A tensor, a tuple of them, or another MIL value (list, string, dictionary)."""

Kernel = Callable[["Call"], Results]

_KERNELS: dict[str, Kernel] = {}


def op(*names: str) -> Callable[[Kernel], Kernel]:
    """Register a kernel under MIL op names; a second kernel for one name is a bug."""

    def register(kernel: Kernel) -> Kernel:
        for name in names:
            if name in _KERNELS:
                raise ValueError(f"op {name!r} has two kernels")
            _KERNELS[name] = kernel
        return kernel

    return register


def kernels() -> Mapping[str, Kernel]:
    """Every kernel by MIL op type."""
    from edgedeploy.targets.coreml import ops

    ops.load()
    return _KERNELS


@dataclass(frozen=True)
class Call:
    """One execution of one operation.

    Attributes:
        operation: what is executed.
        values: its operands by input name; several under one name as a list.
        rounding: type to which recurrent kernels round what they carry from step to step.
        run_block: runs a nested block with values for its inputs and returns its outputs.
    """

    operation: Operation
    values: Mapping[str, Any]
    rounding: torch.dtype
    run_block: Callable[[Block, Sequence[Any]], list[Any]]

    def has(self, name: str) -> bool:
        """True where the operand is given."""
        return name in self.values

    def raw(self, name: str) -> Tensor:
        """A tensor in its stored type, for ops that only move data."""
        value = self._required(name)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if not isinstance(value, Tensor):
            raise self.wrong(f"input {name!r} is {type(value).__name__}, expected a tensor")
        return value

    def tensor(self, name: str) -> Tensor:
        """A tensor in its computing type."""
        return computing(self.raw(name))

    def optional(self, name: str) -> Tensor | None:
        """A tensor in its computing type, ``None`` where it is not given."""
        return self.tensor(name) if name in self.values else None

    def many(self, name: str) -> list[Any]:
        """All operands given under one name."""
        value = self._required(name)
        return value if isinstance(value, list) else [value]

    def number(self, name: str, default: float | None = None) -> float:
        """A scalar as a Python number."""
        if name not in self.values and default is not None:
            return default
        return float(self.tensor(name).item())

    def integer(self, name: str, default: int | None = None) -> int:
        """A scalar as a Python integer."""
        if name not in self.values and default is not None:
            return default
        return int(self.tensor(name).item())

    def integers(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        """A vector as Python integers."""
        if name not in self.values and default is not None:
            return list(default)
        return [int(value) for value in self.tensor(name).reshape(-1).tolist()]

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean."""
        return bool(self.integer(name)) if name in self.values else default

    def flags(self, name: str, length: int) -> list[bool]:
        """A vector of booleans, all False where it is not given."""
        return [bool(value) for value in self.integers(name)] if name in self.values else [False] * length

    def text(self, name: str, default: str | None = None) -> str:
        """A string."""
        if name not in self.values and default is not None:
            return default
        return str(self._required(name))

    def round(self, tensor: Tensor) -> Tensor:
        """Round to the stored type and come back to the computing type."""
        return computing(tensor.to(self.rounding))

    def wrong(self, found: str) -> InputError:
        """The error for an operation that cannot be executed as it stands."""
        return InputError(
            f"Operation {self.operation.name!r} ({self.operation.type}) of the Core ML program cannot be executed.",
            found=found,
        )

    def _required(self, name: str) -> Any:
        if name not in self.values:
            raise self.wrong(f"input {name!r} is missing")
        return self.values[name]


def computing(tensor: Tensor) -> Tensor:
    """The tensor in the type kernels compute in."""
    target = _COMPUTE.get(tensor.dtype)
    return tensor if target is None else tensor.to(target)
