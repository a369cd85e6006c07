"""Advice on what may keep operations off the Neural Engine: read from the program, never a verdict on placement.

Which unit runs an operation is decided by Core ML on the device (``MLComputePlan`` tells there). The rules follow
Apple, "Deploying Transformers on the Apple Neural Engine" (2022), and Hollemans, "The Neural Engine: what do we know".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgedeploy.targets.coreml.program import Block, Function, Operation

MAX_DIMENSION = 16384
MAX_RANK = 5
#: The last axis of a Neural Engine buffer is padded to 64 bytes: 32 float16 elements.
ALIGNMENT = 32

_CONTROL = frozenset({"while_loop", "cond", "lstm", "gru", "rnn"})
_INDEXED = frozenset({
    "gather", "gather_nd", "gather_along_axis", "scatter", "scatter_nd", "scatter_along_axis", "topk", "argsort",
    "non_zero", "non_maximum_suppression", "one_hot",
})  # fmt: skip
_HEAVY = frozenset({"conv", "conv_transpose", "linear", "matmul", "scaled_dot_product_attention"})


@dataclass(frozen=True)
class Advice:
    """One remark.

    Attributes:
        operation, op_type: where.
        module: the source module, "" where it is not known.
        text: what was seen and what may help.
    """

    operation: str
    op_type: str
    module: str
    text: str

    def __str__(self) -> str:
        place = f"{self.operation} ({self.op_type})" + (f" in {self.module}" if self.module else "")
        return f"{place}: {self.text}"


def advise(function: Function, modules: Mapping[str, str] | None = None) -> tuple[Advice, ...]:
    """Look at every operation of a program.

    Args:
        function: the program.
        modules: source module by operation name, where known.
    """
    known = modules or {}
    return tuple(
        Advice(operation.name, operation.type, known.get(operation.name, ""), text)
        for operation in _operations(function.block)
        if not operation.type.startswith("const")
        for text in _remarks(operation)
    )


def _operations(block: Block) -> Iterator[Operation]:
    for operation in block.operations:
        yield operation
        for nested in operation.blocks:
            yield from _operations(nested)


def _remarks(operation: Operation) -> Iterator[str]:
    if operation.type in _CONTROL:
        yield "recurrence and control flow run on the CPU or GPU"
    if operation.type in _INDEXED:
        yield "indexed access usually runs on the CPU; a fixed selection can be a slice or a product with constants"
    for output in operation.outputs:
        kind = output.type
        if kind.kind != "tensor":
            continue
        if kind.shape is None or None in kind.shape:
            yield "its shape is known only at run time: give fixed or enumerated shapes"
            continue
        sizes = [size for size in kind.shape if size is not None]
        if any(size > MAX_DIMENSION for size in sizes):
            yield f"a dimension over {MAX_DIMENSION} ({max(sizes)}): split it"
        if len(sizes) > MAX_RANK:
            yield f"rank {len(sizes)}: at most {MAX_RANK}, 4 is best"
        if kind.dtype == "float32" and operation.type not in ("cast", "classify"):
            yield "computes in float32, which the Neural Engine does not"
        if operation.type in _HEAVY and sizes and sizes[-1] % ALIGNMENT and sizes[-1] < ALIGNMENT:
            yield f"its last axis of {sizes[-1]} is padded to {ALIGNMENT}: put a long axis last"
    if operation.type == "linear":
        rank = len(operation.outputs[0].type.shape or ())
        if rank >= 3:
            yield "a Linear over sequences: a 1x1 convolution on (batch, channels, 1, sequence) suits it better"
