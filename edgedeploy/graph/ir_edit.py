"""Small edits on the intermediate representation that several rewrites share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


#: How onnxruntime's dynamic quantizer names what it adds.
QUANTIZER_SUFFIXES = ("_scale", "_zero_point", "_quantized")


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The array of an initializer or Constant node; ``None`` for a run-time tensor."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else np.asarray(tensor.numpy())


def scalar(value: ir.Value | None) -> float | None:
    """The number in a constant of one element."""
    array = constant(value) if value is None or value.shape is None or np.prod(_known(value.shape)) == 1 else None
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def fresh_name(graph: ir.Graph, stem: str) -> str:
    """A name that no tensor of the graph bears, nor will: not of the kind that onnxruntime's quantizer makes.

    It calls what belongs to tensor ``t`` ``t_scale``, ``t_zero_point`` and ``t_quantized`` without a look at what is
    there, and a tensor with two producers is no graph.
    """
    if stem.endswith(QUANTIZER_SUFFIXES):
        stem = f"{stem}_value"
    used = set(graph.initializers) | {value.name for value in graph.inputs}
    used |= {value.name for node in graph.all_nodes() for value in node.outputs}
    name, count = stem, 1
    while name in used:
        count += 1
        name = f"{stem}_{count}"
    return name


def add_initializer(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """A new constant of that or a fresh name."""
    name = fresh_name(graph, name)
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def replace(
    graph: ir.Graph, old: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], **attributes: Any
) -> ir.Node:
    """Put another node of one output in the place of ``old``, which keeps its output's name, type and readers."""
    new = ir.node(op_type, inputs, attributes=attributes, name=old.name)
    new.metadata_props.update(old.metadata_props)
    before, after = old.outputs[0], new.outputs[0]
    after.type, after.shape = before.type, before.shape
    graph.insert_before(old, new)
    redirect(before, after)
    graph.remove(old, safe=True)
    return new


def redirect(old: ir.Value, new: ir.Value) -> None:
    """Let every reader of ``old``, the graph's outputs included, read ``new``, which takes over its name."""
    name = old.name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    old.name = f"{name}_replaced"
    new.name = name


def producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node of that type which makes ``value``."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type and node.domain == "" else None


def static_shape(value: ir.Value | None) -> list[int | str] | None:
    """Sizes as numbers or symbol texts; ``None`` where the rank or any size is unknown."""
    if value is None or value.shape is None:
        return None
    sizes: list[int | str] = []
    for axis in value.shape:
        text = axis if isinstance(axis, int) else axis.value
        if text is None:
            return None
        sizes.append(text)
    return sizes


def _known(shape: ir.Shape) -> list[int]:
    return [axis if isinstance(axis, int) else 0 for axis in shape]
