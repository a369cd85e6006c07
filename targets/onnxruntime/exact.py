"""A copy of an artefact that multiplies exact integers on whatever CPU runs it, for a host that only stands in.

A CPU with VNNI, AMX or ARM's dot product sums products of 8-bit integers in 32 bits. An x86 without them adds two
unsigned-times-signed products in 16 bits, where they saturate (Intel's VPMADDUBSW): there the artefact of another CPU
gives other numbers. Unsigned times unsigned is summed in 32 bits everywhere, so int8 weights are moved by 128 to uint8,
their zero points too, which changes no difference ``code - zero point`` and so no result. ONNX Runtime's own option
for this (``session.x64quantprecision``, 1.31) leaves out branches of an `If` and fails where two layers share a weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

#: Between int8 and uint8 codes.
OFFSET = 128
#: Weights up to this one cannot saturate where pairs of products are added in 16 bits: 2 x 255 x 64 < 2^15.
LARGEST_SAFE = 64
#: Place of the weight and of its zero point among the inputs.
_PLACES = {"DequantizeLinear": (0, 2), "MatMulInteger": (1, 3)}


def multiplies_integers(model: onnx.ModelProto) -> bool:
    """True where some node holds or makes 8-bit codes."""
    kinds = {node.op_type for graph in _graphs(model.graph) for node in graph.node}
    return bool(kinds & {"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})


def has_signed_activations(model: onnx.ModelProto) -> bool:
    """True where activations are int8: kernels of two signed operands sum in 32 bits, and take no uint8 weights."""
    constants = {tensor.name: tensor for graph in _graphs(model.graph) for tensor in graph.initializer}
    return any(
        node.op_type == "QuantizeLinear"
        and len(node.input) > 2
        and node.input[2] in constants
        and constants[node.input[2]].data_type == onnx.TensorProto.INT8
        for graph in _graphs(model.graph)
        for node in graph.node
    )


def largest_signed_weight(model: onnx.ModelProto) -> int:
    """The largest magnitude of the int8 weights that meet unsigned activations; 0 without any.

    Tables that are looked up and then converted to float meet none.
    """
    if has_signed_activations(model):
        return 0
    graphs = list(_graphs(model.graph))
    read = {node.input[_PLACES[node.op_type][0]] for graph in graphs for node in graph.node if node.op_type in _PLACES}
    constants = [tensor for graph in graphs for tensor in graph.initializer if tensor.name in read]
    codes = [numpy_helper.to_array(item) for item in constants if item.data_type == onnx.TensorProto.INT8]
    return max((int(np.abs(array.astype(np.int16)).max()) for array in codes if array.size), default=0)


def unsigned_weights(model: onnx.ModelProto) -> int:
    """Move every int8 weight to uint8, in place; returns how many readers changed.

    Weights beside signed activations stay.
    """
    places = {"MatMulInteger": _PLACES["MatMulInteger"]} if has_signed_activations(model) else _PLACES
    return _move(model.graph, {}, places)


@dataclass
class _Constant:
    """An initializer, the graph that holds it, and the name of its uint8 form once there is one."""

    graph: onnx.GraphProto
    tensor: onnx.TensorProto
    unsigned: str = ""

    def moved(self) -> str:
        """The name of the uint8 form, which lies beside the original."""
        if not self.unsigned:
            self.unsigned = f"{self.tensor.name}_unsigned"
            codes = numpy_helper.to_array(self.tensor).astype(np.int16) + OFFSET
            self.graph.initializer.append(numpy_helper.from_array(codes.astype(np.uint8), self.unsigned))
        return self.unsigned


def _move(graph: onnx.GraphProto, outer: dict[str, _Constant], places: dict[str, tuple[int, int]]) -> int:
    """Walk a graph and the branches in it; inner names are looked up outwards."""
    known = outer | {tensor.name: _Constant(graph, tensor) for tensor in graph.initializer}
    count = 0
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                count += _move(attribute.g, known, places)
        weight, zero_point = places.get(node.op_type, (None, 0))
        if weight is None:
            continue
        constant = known.get(node.input[weight])
        if constant is None or constant.tensor.data_type != onnx.TensorProto.INT8:
            continue
        given = node.input[zero_point] if len(node.input) > zero_point else ""
        node.input.extend([""] * (zero_point + 1 - len(node.input)))
        node.input[zero_point] = known[given].moved() if given else _added_zero_point(node, constant, known)
        node.input[weight] = constant.moved()
        count += 1
    return count


def _added_zero_point(node: onnx.NodeProto, weight: _Constant, known: dict[str, _Constant]) -> str:
    """Write out the zero point that is 0 by default: as many as the scales, or one."""
    scale = known.get(node.input[1]) if node.op_type == "DequantizeLinear" else None
    shape = tuple(scale.tensor.dims) if scale else ()
    name = f"{node.output[0]}_unsigned_zero_point"
    weight.graph.initializer.append(numpy_helper.from_array(np.full(shape, OFFSET, np.uint8), name))
    return name


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)
