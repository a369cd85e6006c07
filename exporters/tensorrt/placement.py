"""Which nodes compute in INT8: the candidates among which measured engine size and error decide.

Seen with TensorRT-RTX 1.7: INT8 depthwise convolutions are padded to four times their channels, transposed and
recurrent ones have no INT8 kernels, Q/DQ inside masked attention breaks its fusion, and every quantization costs
a generated kernel of about 130 kB, which a small layer's halved weights do not pay for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgedeploy.calibration.schemes import TENSORRT
from edgedeploy.exporters.tensorrt.layers import COMPUTE_OPS

if TYPE_CHECKING:
    from edgedeploy.calibration.scheme import Scheme
    from edgedeploy.calibration.table import CalibrationTable
    from edgedeploy.graph.facts import OpFacts
    from edgedeploy.graph.graph import Graph

#: Part of the nodes that each accuracy cure leaves float: those whose input activations quantize worst.
CURES = {"gentle": 0.25, "gentler": 0.5}


@dataclass(frozen=True)
class Placement:
    """One assignment of nodes to INT8.

    Attributes:
        name: of the candidate.
        scheme: the quantizer's rules.
        exclude: nodes left float beside those that the scheme leaves.
        why: one phrase for the manifest.
    """

    name: str
    scheme: Scheme
    exclude: frozenset[str]
    why: str


def dense(graph: Graph) -> Placement:
    """All dense convolutions and products by weights in INT8; the rest float16."""
    why = "dense convolutions and products by weights int8; depthwise, transposed, recurrent and attention float16"
    return Placement("int8", replace(TENSORRT, excluded_depthwise=True), _grouped(graph) | _attention(graph), why)


def with_depthwise(graph: Graph) -> Placement | None:
    """Depthwise convolutions in INT8 as well; ``None`` where there are none."""
    if not _grouped(graph):
        return None
    return Placement("int8-depthwise", TENSORRT, _attention(graph), "depthwise convolutions int8 as well")


def with_attention(graph: Graph) -> Placement | None:
    """Unmasked attention in INT8 as well; ``None`` where no product of two run-time tensors is."""
    if not _attention(graph):
        return None
    base = dense(graph)
    return replace(base, name="int8-attention", exclude=_grouped(graph), why="unmasked attention int8 as well")


def by_weights(graph: Graph) -> tuple[str, ...]:
    """Nodes that `large_only` may leave float, fewest weights first; the largest always stays INT8."""
    base = dense(graph)
    nodes = [op for op in graph.facts if op.op_type in COMPUTE_OPS and op.name not in base.exclude]
    return tuple(op.name for op in sorted(nodes, key=_weights))[:-1]


def large_only(graph: Graph, left: tuple[str, ...]) -> Placement:
    """Leave the nodes ``left`` float as well."""
    base = dense(graph)
    why = f"{base.why}; the {len(left)} layers with the fewest weights too, so that the engine fits float16's size"
    return replace(base, name="int8-large", exclude=base.exclude | frozenset(left), why=why)


def gentle(graph: Graph, table: CalibrationTable, base: Placement, cure: str = "gentle") -> Placement:
    """Leave the part ``CURES[cure]`` of the nodes float whose inputs quantize worst, by the table's own SQNR."""
    worst: dict[str, float] = {}
    for op in graph.facts:
        if op.op_type not in COMPUTE_OPS or op.name in base.exclude:
            continue
        known = [tensor.name for tensor in op.inputs if tensor.name in table]
        values = [max(table.choice(name, base.scheme.activation).sqnr_db.values(), default=0.0) for name in known]
        if values:
            worst[op.name] = min(values)
    count = max(1, round(len(worst) * CURES[cure]))
    left = frozenset(sorted(worst, key=lambda name: (worst[name], name))[:count])
    why = f"{base.why}; the {len(left)} nodes whose inputs quantize worst float16"
    return replace(base, name=f"{base.name}-{cure}", exclude=base.exclude | left, why=why)


def _grouped(graph: Graph) -> frozenset[str]:
    return frozenset(op.name for op in graph.facts if op.op_type == "Conv" and op.attributes.get("group", 1) != 1)


def _attention(graph: Graph) -> frozenset[str]:
    return frozenset(op.name for op in graph.facts if op.op_type == "MatMul" and not op.weights)


def _weights(op: OpFacts) -> int:
    return max((tensor.elements for tensor in op.weights), default=0)
