"""What the builder made of each ONNX node, read from the layer listing in its own verbose log.

An engine inspector would need a GPU; the listing that TensorRT-RTX logs at detailed verbosity does not, and it
names for every engine layer the operands with their types and the ONNX nodes that went into it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx

#: Ops that carry the multiply-accumulates which INT8 is for.
COMPUTE_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")

_HEADER = "Layers:"
_NAME = re.compile(r"^Name: (?P<name>[^,]*), LayerType: (?P<type>[^,]*),")
_SECTION = re.compile(r", (Inputs|Constants|Outputs|TacticName|Metadata): ")
_DATATYPE = re.compile(r"Datatype: ([A-Za-z0-9]+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_DATA_MOVEMENT = frozenset({"kgen", "Reformat", "reformat", "NoOp", "signal", "wait", "shape_call", "memcpy"})


@dataclass(frozen=True)
class EngineLayer:
    """One layer of a built engine; types are TensorRT's words ("Int8", "Half", "Float")."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]

    @property
    def is_int8(self) -> bool:
        """True where two operands or more (activations or weights) are int8 and it computes."""
        return self.kind not in _DATA_MOVEMENT and [*self.inputs, *self.constants].count("Int8") >= 2


def parse_layers(log: Iterable[str]) -> tuple[EngineLayer, ...]:
    """Read every layer listing among the log messages."""
    layers = []
    for message in log:
        if not message.startswith(_HEADER):
            continue
        for line in message.splitlines()[1:]:
            layer = _parse_line(line)
            if layer is not None:
                layers.append(layer)
    return tuple(layers)


def _parse_line(line: str) -> EngineLayer | None:
    head = _NAME.match(line)
    if head is None:
        return None
    parts = _SECTION.split(line)
    types = {name: tuple(_DATATYPE.findall(body)) for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    return EngineLayer(
        name=head["name"],
        kind=head["type"],
        inputs=types.get("Inputs", ()),
        constants=types.get("Constants", ()),
        outputs=types.get("Outputs", ()),
        nodes=tuple(dict.fromkeys(_NODE.findall(line))),
    )


@dataclass(frozen=True)
class NodePrecision:
    """How one compute node of the ONNX graph ended up."""

    node: str
    op_type: str
    depthwise: bool
    dynamic: bool
    int8: bool
    layer: str


def node_precisions(model: onnx.ModelProto, layers: Sequence[EngineLayer]) -> tuple[NodePrecision, ...]:
    """Say for every Conv, Gemm and MatMul whether both its operands are int8 in the engine."""
    constants = _constant_tensors(model)
    return tuple(_precision(node, constants, layers) for node in model.graph.node if node.op_type in COMPUTE_OPS)


def _precision(node: onnx.NodeProto, constants: frozenset[str], layers: Sequence[EngineLayer]) -> NodePrecision:
    mine = [layer for layer in layers if node.name in layer.nodes and layer.kind not in _DATA_MOVEMENT]
    int8 = next((layer for layer in mine if layer.is_int8), None)
    group = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return NodePrecision(
        node=node.name,
        op_type=node.op_type,
        depthwise=node.op_type == "Conv" and group > 1,
        dynamic=not any(name in constants for name in node.input[1:2]) and node.input[0] not in constants,
        int8=int8 is not None,
        layer=(int8 or mine[0]).name if mine else "",
    )


def _constant_tensors(model: onnx.ModelProto) -> frozenset[str]:
    """Initializers and everything computed from initializers alone (dequantized and cast weights)."""
    known = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if all(not name or name in known for name in node.input):
            known.update(node.output)
    return frozenset(known)
