"""Who makes and who reads each tensor of a model, its type and its constant value."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Topology:
    """An index of one model; nodes are in execution order and every one has a name.

    Attributes:
        nodes: the nodes.
        producer: the node that makes a tensor.
        consumers: (node, input index) of every reader of a tensor.
        constants: initializers by name.
        shapes: known shapes, ``None`` for a dynamic dimension.
        floats: names of the float32 tensors.
        outputs: names of the graph's outputs.
    """

    nodes: tuple[onnx.NodeProto, ...]
    producer: Mapping[str, onnx.NodeProto]
    consumers: Mapping[str, tuple[tuple[onnx.NodeProto, int], ...]]
    constants: Mapping[str, onnx.TensorProto]
    shapes: Mapping[str, tuple[int | None, ...]]
    floats: frozenset[str]
    outputs: frozenset[str]

    def value(self, name: str) -> NDArray[np.float32]:
        """The constant's values."""
        values: NDArray[np.float32] = numpy_helper.to_array(self.constants[name])
        return values

    def scalar(self, name: str) -> float:
        """The value of a constant with one element."""
        return float(self.value(name).reshape(-1)[0])


def index(model: onnx.ModelProto) -> Topology:
    """Index a model whose shapes are inferred (types of tensors that are not are inferred here)."""
    graph = model.graph
    typed = {value.name for value in (*graph.input, *graph.output, *graph.value_info)}
    if any(name and name not in typed for node in graph.node for name in node.output):
        graph = onnx.shape_inference.infer_shapes(model).graph
    consumers: dict[str, list[tuple[onnx.NodeProto, int]]] = defaultdict(list)
    producer: dict[str, onnx.NodeProto] = {}
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name:
                consumers[name].append((node, position))
        for name in node.output:
            if name:
                producer[name] = node
    values = [*graph.input, *graph.output, *graph.value_info]
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    floats = {value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    floats |= {name for name, tensor in constants.items() if tensor.data_type == onnx.TensorProto.FLOAT}
    shapes: dict[str, tuple[int | None, ...]] = {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim
        )
        for value in values
        if value.type.tensor_type.HasField("shape")
    }
    shapes |= {name: tuple(tensor.dims) for name, tensor in constants.items()}
    return Topology(
        nodes=tuple(model.graph.node),
        producer=producer,
        consumers={name: tuple(readers) for name, readers in consumers.items()},
        constants=constants,
        shapes=shapes,
        floats=frozenset(floats),
        outputs=frozenset(value.name for value in model.graph.output),
    )


def attribute(node: onnx.NodeProto, name: str, default: int | float) -> int | float:
    """A numeric attribute of a node."""
    for item in node.attribute:
        if item.name == name:
            value = onnx.helper.get_attribute_value(item)
            assert isinstance(value, int | float)
            return value
    return default


def integers(node: onnx.NodeProto, name: str, default: Sequence[int]) -> list[int]:
    """An attribute that lists integers."""
    found = [list(item.ints) for item in node.attribute if item.name == name]
    return found[0] if found else list(default)


def bounds(activation: onnx.NodeProto, topology: Topology) -> tuple[float, float]:
    """What a Relu or a Clip lets pass."""
    if activation.op_type == "Relu":
        return 0.0, math.inf
    given = [len(activation.input) > place and bool(activation.input[place]) for place in (1, 2)]
    low = topology.scalar(activation.input[1]) if given[0] else -math.inf
    high = topology.scalar(activation.input[2]) if given[1] else math.inf
    return low, high
