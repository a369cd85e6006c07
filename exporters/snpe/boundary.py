"""Integer inputs and outputs: the boundary's QuantizeLinear and DequantizeLinear cut off, their scales kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import numpy_helper


@dataclass(frozen=True)
class Boundary:
    """How one graph input or output is stored; ``scale`` is ``None`` for a float or an index.

    Attributes:
        source: its name in the captured graph.
        name: its name in the artefact.
        dtype: numpy name.

    """

    source: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int | None = None


def strip_boundary(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy of a Q/DQ model whose quantized inputs and outputs are integers; their names stay those of the floats."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in graph.input:
        readers = [node for node in graph.node if value.name in node.input]
        if len(readers) == 1 and readers[0].op_type == "QuantizeLinear":
            _replace(graph, readers[0], readers[0].output[0], value, types)
    for value in graph.output:
        writer = next((node for node in graph.node if value.name in node.output), None)
        if writer is not None and writer.op_type == "DequantizeLinear":
            _replace(graph, writer, writer.input[0], value, types)
    del graph.value_info[:]
    onnx.checker.check_model(result)
    return result


def _replace(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    inner: str,
    value: onnx.ValueInfoProto,
    types: Mapping[str, int],
) -> None:
    """Drop a boundary node: what it stored or read as ``inner`` is now the graph's own ``value``."""
    value.type.tensor_type.elem_type = types[node.input[2]]
    graph.node.remove(node)
    for other in graph.node:
        other.input[:] = [value.name if name == inner else name for name in other.input]
        other.output[:] = [value.name if name == inner else name for name in other.output]


def boundaries(model: onnx.ModelProto, stripped: onnx.ModelProto) -> tuple[tuple[Boundary, ...], tuple[Boundary, ...]]:
    """Inputs and outputs of the artefact; ``model`` is the Q/DQ model before stripping, which knows the scales."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = {name: node for node in model.graph.node if node.op_type == "QuantizeLinear" for name in node.input[:1]}
    writers = {name: node for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}

    def described(value: onnx.ValueInfoProto, node: onnx.NodeProto | None) -> Boundary:
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        if node is None or kind.kind == "f":
            return Boundary(value.name, value.name, str(kind), shape)
        scale, zero_point = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
        return Boundary(value.name, value.name, str(kind), shape, float(scale), int(zero_point))

    return (
        tuple(described(value, readers.get(value.name)) for value in stripped.graph.input),
        tuple(described(value, writers.get(value.name)) for value in stripped.graph.output),
    )
