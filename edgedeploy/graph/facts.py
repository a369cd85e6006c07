"""Facts per op: multiply-accumulates, parameters, bytes and shapes, counted from the graph alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from edgedeploy.tensors import TensorSpec


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
    """Count every op of a shape-inferred model, in execution order."""
    raise NotImplementedError
