"""Exact simplifications that the general optimizer does not make."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgedeploy.graph.ir_edit import add_initializer, constant, replace, static_shape

#: Inputs of the recurrent ops that hold a state which is zero by default.
_STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}


def transpose_weights(model: ir.Model) -> None:
    """Fold the transpose of a weight, keeping the weight's name in the new one ("fc.weight_transposed")."""
    graph = model.graph
    made: dict[tuple[str | None, tuple[int, ...]], ir.Value] = {}
    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        if source is None or source.name not in graph.initializers:
            continue
        array = constant(source)
        if array is None or node.outputs[0].is_graph_output():
            continue
        perm = tuple(node.attributes.get_ints("perm") or reversed(range(array.ndim)))
        key = (source.name, perm)
        if key not in made:
            made[key] = add_initializer(graph, f"{source.name}_transposed", np.ascontiguousarray(array.transpose(perm)))
        ir.convenience.replace_all_uses_with(node.outputs[0], made[key])
        graph.remove(node, safe=True)


def drop_zero_states(model: ir.Model) -> None:
    """A recurrent op that starts from zeros needs no initial state, however the zeros were made."""
    for node in model.graph:
        for index in _STATES.get(node.op_type, ()):
            if index < len(node.inputs) and node.inputs[index] is not None and _is_zero(node.inputs[index]):
                node.replace_input_with(index, None)


def index_as_reshape(model: ir.Model) -> None:
    """GatherND that takes every element once and in order (torch's ``mask[rows, columns]``) is a Reshape."""
    graph = model.graph
    for node in list(graph):
        if node.op_type != "GatherND" or node.attributes.get_int("batch_dims") or 0:
            continue
        indices, data = constant(node.inputs[1]), static_shape(node.inputs[0])
        if indices is None or data is None or not all(isinstance(size, int) for size in data):
            continue
        sizes = [int(size) for size in data]
        if indices.shape[-1] != len(sizes) or indices[..., 0].size != int(np.prod(sizes)):
            continue
        order = np.stack(np.unravel_index(np.arange(int(np.prod(sizes))), sizes), axis=-1)
        if not np.array_equal(indices.reshape(order.shape), order):
            continue
        shape = np.asarray(indices.shape[:-1], dtype=np.int64)
        target = add_initializer(graph, f"{node.outputs[0].name}_shape", shape)
        replace(graph, node, "Reshape", [node.inputs[0], target])


def _is_zero(value: ir.Value | None) -> bool:
    array = constant(value)
    if array is not None:
        return not array.any()
    node = value.producer() if value is not None else None
    if node is None or node.op_type not in ("Expand", "Slice", "Identity", "ConstantOfShape"):
        return False
    if node.op_type == "ConstantOfShape":
        fill = node.attributes.get("value")
        return fill is None or not np.asarray(fill.as_tensor().numpy()).any()
    return _is_zero(node.inputs[0])
