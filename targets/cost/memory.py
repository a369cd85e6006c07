"""Peak memory and traffic, from tensor lifetimes alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgedeploy.targets.cost.layers import FREE_OPS, FUSED_OPS

if TYPE_CHECKING:
    from edgedeploy.graph.facts import OpFacts


def peak_activation_elements(facts: Sequence[OpFacts]) -> int:
    """Largest number of elements alive at once, in the graph's own order.

    Reshapes and fused activations share their input's buffer. This is what a perfect
    allocator needs: a real one needs as much or more.
    """
    buffer: dict[str, str] = {}
    sizes: dict[str, int] = {}
    last_use: dict[str, int] = {}
    for step, op in enumerate(facts):
        for tensor in op.inputs:
            root = buffer.setdefault(tensor.name, tensor.name)
            sizes.setdefault(root, tensor.elements)
            last_use[root] = step
        shares = op.op_type in FREE_OPS | FUSED_OPS and bool(op.inputs)
        for tensor in op.outputs:
            root = buffer[op.inputs[0].name] if shares else tensor.name
            buffer[tensor.name] = root
            sizes[root] = max(sizes.get(root, 0), tensor.elements)
            last_use[root] = max(last_use.get(root, 0), step)
    born: dict[str, int] = {}
    for step, op in enumerate(facts):
        for tensor in (*op.inputs, *op.outputs):
            born.setdefault(buffer[tensor.name], step)
    read = {buffer[tensor.name] for op in facts for tensor in op.inputs}
    made = {buffer[tensor.name] for op in facts for tensor in op.outputs}
    change = [0] * (len(facts) + 2)
    for root, size in sizes.items():
        start = born[root] if root in made else 0
        end = last_use[root] if root in read else len(facts)
        change[start] += size
        change[end + 1] -= size
    peak = alive = 0
    for step in range(len(facts) + 1):
        alive += change[step]
        peak = max(peak, alive)
    return peak
