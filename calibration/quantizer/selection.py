"""Which nodes compute in integers under a scheme, and which activations are part of the node before them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgedeploy.calibration.quantizer.operands import RECURRENT, Role, roles
from edgedeploy.calibration.quantizer.topology import Topology, attribute, bounds
from edgedeploy.calibration.scheme import Placement, Scheme

if TYPE_CHECKING:
    import onnx

#: Ops whose output a runtime computes together with an activation that follows.
_FUSING = frozenset({"Add", "Conv", "ConvTranspose", "Gemm", "MatMul", "Mul", "Sub"})
_INTEGER_PARAMETER_OPS = frozenset({"Shape", "Size"})


@dataclass(frozen=True)
class Selection:
    """The nodes that compute in integers.

    Attributes:
        integer: their names; a fused activation is one of them.
        inner: tensors inside a fused pair, never stored: the input of a fused activation or of a fused bias Add.
        biases: the Add after a MatMul, by its name, where it is that MatMul's bias.
    """

    integer: frozenset[str]
    inner: frozenset[str]
    biases: frozenset[str]


def select(topology: Topology, scheme: Scheme, exclude: frozenset[str]) -> Selection:
    """Choose the nodes that compute in integers; those named in ``exclude`` do not."""
    floating = exclude | (_masked_attention(topology) if scheme.masked_attention_float else frozenset())
    integer: set[str] = set()
    inner: set[str] = set()
    biases: set[str] = set()
    fused_biases = _fused_biases(topology) if scheme.fused_bias else {}
    for node in topology.nodes:
        if node.name in floating or not _quantizable(node, topology, scheme):
            continue
        before = topology.producer.get(node.input[0]) if node.input else None
        if _fused(node, scheme, topology) and _fusible(before, node, topology, integer):
            integer.add(node.name)
            inner.add(node.input[0])
            continue
        if node.name in fused_biases:
            integer.add(node.name)
            if fused_biases[node.name] in integer:
                biases.add(node.name)
                inner.add(_product(node, topology))
            continue
        if not scheme.computes(node.op_type):
            continue
        if scheme.placement is Placement.INPUTS and _only_picks(node, topology):
            continue
        if (
            "*" not in scheme.op_types
            and node.op_type in scheme.shared_scale
            and not _reads_integers(node, topology, integer)
        ):
            continue
        integer.add(node.name)
    if scheme.placement is Placement.EVERYWHERE and "*" not in scheme.op_types:
        _release_moves(topology, scheme, integer)
    return Selection(frozenset(integer), frozenset(inner), frozenset(biases))


def _quantizable(node: onnx.NodeProto, topology: Topology, scheme: Scheme) -> bool:
    if node.op_type in RECURRENT or node.op_type in _INTEGER_PARAMETER_OPS:
        return False
    parts = roles(node, topology)
    if scheme.excluded_depthwise and _is_depthwise(node, topology):
        return False
    if node.op_type in {"Conv", "ConvTranspose", "Gemm"}:
        # An integer bias is a constant; a bias that another op computes leaves the node float.
        if len(parts) > 2 and parts[2] is Role.ACTIVATION:
            return False
        if node.op_type == "Gemm" and (attribute(node, "transA", 0) or not _bias_per_column(node, topology)):
            return False
    if node.op_type == "Gather" and Role.WEIGHT in parts:
        return True
    return Role.ACTIVATION in parts


def _only_picks(node: onnx.NodeProto, topology: Topology) -> bool:
    """Whether a Gather takes parts of a run-time tensor: data movement, where one of a table has weights."""
    return node.op_type == "Gather" and Role.WEIGHT not in roles(node, topology)


def _bias_per_column(node: onnx.NodeProto, topology: Topology) -> bool:
    if len(node.input) < 3 or not node.input[2]:
        return True
    shape = topology.shapes.get(node.input[2], ())
    return all(size == 1 for size in shape[:-1])


def _is_depthwise(node: onnx.NodeProto, topology: Topology) -> bool:
    group = attribute(node, "group", 1)
    return node.op_type == "Conv" and group > 1 and topology.shapes.get(node.input[1], (0, 0))[1] == 1


def _fused(node: onnx.NodeProto, scheme: Scheme, topology: Topology) -> bool:
    """Whether the backend fuses this op; where saturation is to replace it, codes hold zero, so its bounds must."""
    if node.op_type not in scheme.fused_activations or any(
        name not in topology.constants for name in node.input[1:] if name
    ):
        return False
    low, high = bounds(node, topology) if scheme.absorbed_activations else (0.0, 0.0)
    return low <= 0 <= high


def _fusible(before: onnx.NodeProto | None, node: onnx.NodeProto, topology: Topology, integer: set[str]) -> bool:
    return (
        before is not None
        and before.name in integer
        and before.op_type in _FUSING
        and _sole_reader(node.input[0], topology)
    )


def bias_add(matmul: onnx.NodeProto, topology: Topology) -> onnx.NodeProto | None:
    """The Add that gives a MatMul by a weight its bias, one constant per output channel; ``None`` where none does."""
    if matmul.op_type != "MatMul" or matmul.input[1] not in topology.constants:
        return None
    if not _sole_reader(matmul.output[0], topology):
        return None
    node, position = topology.consumers[matmul.output[0]][0]
    if node.op_type != "Add" or node.input[1 - position] not in topology.constants:
        return None
    shape = topology.shapes[node.input[1 - position]]
    columns = topology.shapes[matmul.input[1]][-1]
    return node if shape[-1:] == (columns,) and all(size == 1 for size in shape[:-1]) else None


def _fused_biases(topology: Topology) -> dict[str, str]:
    """MatMul by the Add that is its bias, both by name."""
    pairs = ((bias_add(node, topology), node) for node in topology.nodes)
    return {add.name: matmul.name for add, matmul in pairs if add is not None}


def _product(add: onnx.NodeProto, topology: Topology) -> str:
    return str(add.input[1] if add.input[0] in topology.constants else add.input[0])


def _sole_reader(name: str, topology: Topology) -> bool:
    return len(topology.consumers.get(name, ())) == 1 and name not in topology.outputs


def _reads_integers(node: onnx.NodeProto, topology: Topology, integer: set[str]) -> bool:
    return any(name in topology.producer and topology.producer[name].name in integer for name in node.input)


def _release_moves(topology: Topology, scheme: Scheme, integer: set[str]) -> None:
    """Leave data movement float that no integer op is beside: rounding would cost accuracy and win nothing.

    A Concat that the graph gives out is float whatever is before it: boxes in pixels and scores below 1, or the two
    parts of a recurrent state, would else share the scale of the largest. Movement after a float result stays float.
    """
    moving = [node for node in topology.nodes if node.name in integer and _moves(node, scheme)]
    before = -1
    while before != len(integer):
        before = len(integer)
        for node in reversed(moving):
            if node.name not in integer:
                continue
            if node.op_type == "Concat":
                idle = ends_outside(node, topology, scheme) or not _read_by_integers(node, topology, integer)
            else:
                idle = not _reads_integers(node, topology, integer) or (
                    not _read_by_integers(node, topology, integer) and _after_floats(node, topology, scheme)
                )
            if idle:
                integer.discard(node.name)


def ends_outside(node: onnx.NodeProto, topology: Topology, scheme: Scheme) -> bool:
    """Whether what a node makes is a graph output, as it is or only moved on the way."""
    return any(
        name in topology.outputs
        or any(
            _moves(reader, scheme) and ends_outside(reader, topology, scheme) for reader, _ in _readers(name, topology)
        )
        for name in node.output
    )


def _moves(node: onnx.NodeProto, scheme: Scheme) -> bool:
    return node.op_type == "Concat" or node.op_type in scheme.shared_scale


def _readers(name: str, topology: Topology) -> tuple[tuple[onnx.NodeProto, int], ...]:
    return topology.consumers.get(name, ())


def _read_by_integers(node: onnx.NodeProto, topology: Topology, integer: set[str]) -> bool:
    return any(reader.name in integer for name in node.output for reader, _ in _readers(name, topology))


def _after_floats(node: onnx.NodeProto, topology: Topology, scheme: Scheme) -> bool:
    """Whether the values come from an op whose result is float at no cost."""
    origin: onnx.NodeProto | None = node
    while origin is not None and origin.op_type in scheme.shared_scale:
        origin = topology.producer.get(origin.input[0])
    return origin is not None and origin.op_type in scheme.float_outputs


def _masked_attention(topology: Topology) -> frozenset[str]:
    """The two MatMuls of run-time tensors around every Softmax whose input is masked by an Add or a Where."""
    found: set[str] = set()
    for node in topology.nodes:
        if node.op_type != "Softmax":
            continue
        before = tuple(_upstream(node.input[0], topology))
        if not any(step.op_type in {"Add", "Where"} for step in before):
            continue
        after = tuple(_downstream(node.output[0], topology))
        found |= {step.name for step in (*before, *after) if step.op_type == "MatMul" and _dynamic(step, topology)}
    return frozenset(found)


def _dynamic(matmul: onnx.NodeProto, topology: Topology) -> bool:
    return not any(name in topology.constants for name in matmul.input)


_THROUGH = frozenset(
    ["Add", "Cast", "Div", "Dropout", "Expand", "Identity", "IsNaN", "Mul", "Reshape", "Transpose", "Where"]
)


def _upstream(name: str, topology: Topology) -> Iterator[onnx.NodeProto]:
    """Nodes before ``name``, back to and with the first MatMul on every path."""
    waiting, seen = [name], set()
    while waiting:
        node = topology.producer.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type == "MatMul":
            yield node
        elif node.op_type in _THROUGH:
            yield node
            waiting += [source for source in node.input if source in topology.floats]


def _downstream(name: str, topology: Topology) -> Iterator[onnx.NodeProto]:
    """Nodes after ``name``, up to and with the first MatMul on every path."""
    waiting, seen = [name], set()
    while waiting:
        for node, _ in topology.consumers.get(waiting.pop(), ()):
            if node.name in seen:
                continue
            seen.add(node.name)
            if node.op_type == "MatMul":
                yield node
            elif node.op_type in _THROUGH:
                yield node
                waiting += node.output
