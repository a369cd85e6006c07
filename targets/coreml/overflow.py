"""Finds where float16 runs out: activations near 65,504, infinite masks, and the first op that makes a NaN."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from edgedeploy.targets.coreml.executor import Executor
from edgedeploy.targets.coreml.package import Package
from edgedeploy.targets.coreml.program import Block, Operation, Ref

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

FLOAT16_MAX = 65504.0
NEAR = 0.5
"""Fraction of the largest float16 from which an activation counts as near: one octave of headroom."""


@dataclass(frozen=True)
class Finding:
    """One operation in danger.

    Attributes:
        operation, op_type: its name and type.
        kind: "overflow" (beyond float16), "near" (within an octave of it), "infinite" (an infinity where none was
            read: a mask), "nan" (a NaN where none was read).
        largest: largest finite magnitude it produced.
    """

    operation: str
    op_type: str
    kind: str
    largest: float

    def __str__(self) -> str:
        return f"{self.operation} ({self.op_type}): {self.kind}, largest value {self.largest:.4g}"


@dataclass
class _Seen:
    operation: Operation
    largest: float = 0.0
    infinite: bool = False
    nan: bool = False


def watch(
    package: Package | Path, feeds: Iterable[Mapping[str, NDArray[Any]]], *, as_if_float16: bool = False
) -> tuple[Finding, ...]:
    """Run samples without rounding and report every operation whose result float16 cannot hold, or hardly.

    Args:
        package: the package, or its FLOAT32 twin.
        feeds: samples in the package's names and types.
        as_if_float16: report operations declared float32 too: what a twin would suffer as float16.
    """
    seen: dict[str, _Seen] = {}

    def observe(operation: Operation, index: int, value: Tensor) -> None:
        declared = operation.outputs[index].type.dtype
        if not value.is_floating_point() or not value.numel() or not (as_if_float16 or declared == "float16"):
            return
        name = operation.outputs[index].name
        record = seen.setdefault(name, _Seen(operation))
        low, high = torch.aminmax(value)
        extreme = max(abs(float(low)), abs(float(high)))
        if extreme != extreme or extreme == float("inf"):
            finite = value[torch.isfinite(value)]
            extreme = float(finite.abs().max()) if finite.numel() else 0.0
            record.infinite |= bool(torch.isinf(value).any())
            record.nan |= bool(torch.isnan(value).any())
        record.largest = max(record.largest, extreme)

    executor = Executor(package, precision="float32", observer=observe)
    for sample in feeds:
        executor.run(sample)
    findings = []
    for record in seen.values():
        inputs = [seen[name] for name in record.operation.references() if name in seen]
        kind = ""
        if record.nan and not any(other.nan for other in inputs):
            kind = "nan"
        elif record.infinite and not any(other.infinite for other in inputs):
            kind = "infinite"
        elif record.largest > FLOAT16_MAX:
            kind = "overflow"
        elif record.largest > NEAR * FLOAT16_MAX:
            kind = "near"
        if kind:
            findings.append(Finding(record.operation.name, record.operation.type, kind, record.largest))
    findings += _constant_masks(executor)
    return tuple(findings)


def _constant_masks(executor: Executor) -> list[Finding]:
    """Constants that are infinite in float16: −inf itself, or finfo.min of a wider type."""
    found = []
    for name, value in executor.constants.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not value.numel():
            continue
        low, high = torch.aminmax(value)
        largest = max(abs(float(low)), abs(float(high)))
        if largest > FLOAT16_MAX:
            found.append(Finding(name, "const", "infinite" if largest == float("inf") else "overflow", largest))
    return found


def keep_float32(package: Package | Path, findings: Iterable[Finding]) -> frozenset[str]:
    """Names of the operations to keep in float32: those found, and every one that reads what they produce.

    A reader must stay float32 too, or the value would be cast to float16 on its way there.
    """
    function = Executor(package).function
    names = {finding.operation for finding in findings}
    produced = {
        output.name
        for operation in _operations(function.block)
        if operation.name in names
        for output in operation.outputs
    }
    produced |= names
    readers = {
        operation.name
        for operation in _operations(function.block)
        if any(
            isinstance(operand, Ref) and operand.name in produced
            for operands in operation.inputs.values()
            for operand in operands
        )
    }
    return frozenset(names | readers)


def _operations(block: Block) -> Iterable[Operation]:
    for operation in block.operations:
        yield operation
        for nested in operation.blocks:
            yield from _operations(nested)
