"""`for_micro`: the float graph with recurrent and left-over normalization ops in terms of ops that have kernels.

It runs before calibration, so that the new tensors get ranges of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgedeploy.errors import UnsupportedOpError
from edgedeploy.exporters.tflite_micro.pixel_shuffle import fold_into_convolutions
from edgedeploy.exporters.tflite_micro.unroll import unroll_lstm
from edgedeploy.exporters.tflite_micro.unroll_gru import unroll_gru
from edgedeploy.graph.graph import Graph
from edgedeploy.graph.names import names_read

_UNROLL = {"GRU": unroll_gru, "LSTM": unroll_lstm}


@dataclass(frozen=True)
class Rewritten:
    """The graph to quantize; ``higher`` names tensors that need int16 (LSTM cell states)."""

    graph: Graph
    changed: bool
    higher: frozenset[str] = frozenset()


@dataclass
class Scope:
    """Where a rewrite puts its nodes and constants; names are unique within the graph."""

    prefix: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    higher: set[str] = field(default_factory=set)

    def constant(self, name: str, values: np.ndarray) -> str:
        """Add a constant and return its name."""
        full = f"{self.prefix}/{name}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), full))
        return full

    def node(self, op_type: str, inputs: list[str], name: str, **attributes: object) -> str:
        """Add a node with one output and return the output's name."""
        return self.split(op_type, inputs, [name], **attributes)[0]

    def split(self, op_type: str, inputs: list[str], names: list[str], **attributes: object) -> list[str]:
        """Add a node with several outputs and return their names."""
        full = [f"{self.prefix}/{name}" for name in names]
        self.nodes.append(helper.make_node(op_type, inputs, full, name=full[0], **attributes))
        return full


def for_micro(graph: Graph) -> Rewritten:
    """Unroll LSTMs and GRUs, make left-over batch norms a Mul and an Add, give PixelShuffle the kernel's order.

    Raises:
        UnsupportedOpError: for a recurrent node that cannot be unrolled.
    """
    kinds = {node.op_type for node in graph.model.graph.node}
    if not kinds & {"GRU", "LSTM", "BatchNormalization", "DepthToSpace"}:
        return Rewritten(graph, changed=False)
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    folded = fold_into_convolutions(model, constants)
    if not folded and not kinds & {"GRU", "LSTM", "BatchNormalization"}:
        return Rewritten(graph, changed=False)
    shapes = dict(_shapes(model))
    nodes: list[onnx.NodeProto] = []
    higher: set[str] = set()
    for node in model.graph.node:
        scope = Scope(node.name or node.output[0])
        if node.op_type in _UNROLL:
            why = _UNROLL[node.op_type](node, scope, constants, shapes)
            if why:
                raise UnsupportedOpError("TensorFlow Lite Micro", [(node.op_type, scope.prefix, why)])
        elif node.op_type == "BatchNormalization" and all(name in constants for name in node.input[1:5]):
            _scale_and_shift(node, scope, constants, len(shapes[node.input[0]]))
        else:
            scope.nodes.append(node)
        nodes.extend(scope.nodes)
        model.graph.initializer.extend(scope.constants)
        higher |= scope.higher
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    del model.graph.value_info[:]
    _drop_unused(model)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    return Rewritten(Graph(inferred, graph.batch_norms, graph.modules), True, frozenset(higher))


def _scale_and_shift(node: onnx.NodeProto, scope: Scope, constants: dict[str, np.ndarray], rank: int) -> None:
    gamma, beta, mean, variance = (constants[name].astype(np.float64) for name in node.input[1:5])
    epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
    scale = gamma / np.sqrt(variance + epsilon)
    shape = (-1, *((1,) * (rank - 2)))
    factor = scope.constant("scale", scale.reshape(shape).astype(np.float32))
    offset = scope.constant("shift", (beta - mean * scale).reshape(shape).astype(np.float32))
    scaled = scope.node("Mul", [node.input[0], factor], "scaled")
    scope.nodes.append(helper.make_node("Add", [scaled, offset], [node.output[0]], name=f"{scope.prefix}/add"))


def _shapes(model: onnx.ModelProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        yield value.name, tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _drop_unused(model: onnx.ModelProto) -> None:
    read = names_read(model.graph)
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
