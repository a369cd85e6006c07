"""The layers that accuracy repair ranks and raises: an integer op with what is fused into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgedeploy.calibration.quantizer.operands import Role, roles
from edgedeploy.calibration.quantizer.prepare import prepared
from edgedeploy.calibration.quantizer.selection import select
from edgedeploy.calibration.quantizer.topology import index

if TYPE_CHECKING:
    from edgedeploy.calibration.scheme import Scheme
    from edgedeploy.graph.graph import Graph


@dataclass(frozen=True)
class Layer:
    """One layer that computes in integers under a scheme.

    Attributes:
        name, op_type: of its first node.
        nodes: names of all its nodes: the op, a fused bias Add, a fused activation.
        tensors: the run-time float tensors that it reads and makes.
    """

    name: str
    op_type: str
    nodes: tuple[str, ...]
    tensors: tuple[str, ...]


def layers(graph: Graph, scheme: Scheme) -> tuple[Layer, ...]:
    """Every layer of a graph that computes in integers under a scheme, in execution order."""
    topology = index(prepared(graph.model))
    selection = select(topology, scheme, frozenset())
    result = []
    for node in topology.nodes:
        if node.name not in selection.integer or any(name in selection.inner for name in node.input):
            continue
        nodes, last = [node.name], node
        while last.output[0] in selection.inner:
            last = topology.consumers[last.output[0]][0][0]
            nodes.append(last.name)
        reads = [name for name, role in zip(node.input, roles(node, topology), strict=True) if role is Role.ACTIVATION]
        makes = [name for name in last.output if name in topology.floats]
        result.append(Layer(node.name, node.op_type, tuple(nodes), (*reads, *makes)))
    return tuple(result)
