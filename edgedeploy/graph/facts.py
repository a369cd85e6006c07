"""Facts per op: multiply-accumulates, parameters, bytes and shapes, counted from the graph alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import onnx

from edgedeploy.graph.macs import macs
from edgedeploy.tensors import Dimension, TensorSpec


@dataclass(frozen=True)
class OpFacts:
    """One node of the canonical graph.

    Attributes:
        name, op_type: of the node.
        inputs, outputs: its run-time tensors (no weights), in order.
        weights: its constant operands, in order.
        macs: multiply-accumulates of one inference, dynamic dimensions counted as 1; 0 for data movement and
            element-wise ops.
        parameters: number of constant elements it reads.
        attributes: the node's numeric attributes ("group", "strides", "dilations", "kernel_shape", "axis" ...).
    """

    name: str
    op_type: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights: tuple[TensorSpec, ...]
    macs: int
    parameters: int
    attributes: Mapping[str, int | float | tuple[int, ...]]

    @property
    def activation_bytes(self) -> int:
        """float32 bytes of its run-time inputs and outputs."""
        return 4 * sum(tensor.elements for tensor in (*self.inputs, *self.outputs))


def op_facts(model: onnx.ModelProto) -> tuple[OpFacts, ...]:
    """Count every op of a shape-inferred model, in execution order.

    Multiply-accumulates follow `macs`. Constants are initializers; the graph must hold no Constant nodes.
    """
    graph = model.graph
    specs = {value.name: _spec(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    weights = {
        tensor.name: TensorSpec(tensor.name, tuple(tensor.dims), _dtype(tensor.data_type))
        for tensor in graph.initializer
    }
    known = {**specs, **weights}
    shapes = {name: tuple(_size(axis) for axis in spec.shape) for name, spec in known.items()}
    facts = []
    for node in graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        numeric = {name: _numeric(value) for name, value in attributes.items()}
        texts = {name: value.decode() for name, value in attributes.items() if isinstance(value, bytes)}
        constants = tuple(weights[name] for name in node.input if name in weights)
        facts.append(
            OpFacts(
                name=node.name,
                op_type=node.op_type,
                inputs=tuple(specs[name] for name in node.input if name in specs and name not in weights),
                outputs=tuple(specs[name] for name in node.output if name in specs),
                weights=constants,
                macs=macs(
                    node.op_type,
                    [shapes.get(name) for name in node.input],
                    [shapes.get(name) for name in node.output],
                    {**{name: value for name, value in numeric.items() if value is not None}, **texts},
                ),
                parameters=sum(spec.elements for spec in constants),
                attributes={name: value for name, value in numeric.items() if value is not None},
            )
        )
    return tuple(facts)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(
        axis.dim_value if axis.HasField("dim_value") else (axis.dim_param or "dynamic") for axis in tensor.shape.dim
    )
    return TensorSpec(value.name, shape, _dtype(tensor.elem_type))


def _dtype(elem_type: int) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(elem_type)) if elem_type else "float32"


def _size(axis: Dimension) -> int:
    """A dynamic size counts as 1; one computed from it ("4*batch") as its factors."""
    if isinstance(axis, int):
        return axis
    return prod(int(factor) for factor in re.findall(r"(?<![\w.])\d+(?![\w.])", axis)) if "*" in axis else 1


def _numeric(value: object) -> int | float | tuple[int, ...] | None:
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, list) and value and all(isinstance(item, int) for item in value):
        return tuple(value)
    return None
