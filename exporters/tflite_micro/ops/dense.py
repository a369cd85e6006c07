"""Gemm and MatMul: FULLY_CONNECTED with constant weights, BATCH_MATMUL between two run-time tensors."""

from __future__ import annotations

from dataclasses import replace

from edgedeploy.exporters.tflite_micro.layout import Layout, identity
from edgedeploy.exporters.tflite_micro.lowering import Lowering
from edgedeploy.exporters.tflite_micro.ops.weights import bias_tensor, per_tensor, weight_refusal, weights_of
from edgedeploy.exporters.tflite_micro.qdq import Node, Value
from edgedeploy.exporters.tflite_micro.registry import handles


def gemm_refusal(node: Node) -> str:
    """A Gemm is x·W + b with constant W."""
    attributes = node.attributes
    if attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        return "transA, alpha and beta other than 0, 1 and 1 have no kernel"
    return weight_refusal(node, 1)


@handles("Gemm", refusal=gemm_refusal)
def gemm(lower: Lowering, node: Node) -> None:
    """FULLY_CONNECTED."""
    transposed = bool(node.attributes.get("transB", 0))
    fully_connected(lower, node, weights_of(node, 1, axis=0 if transposed else 1), out_first=transposed)


def matmul_refusal(node: Node) -> str:
    """Both operands have two axes or more."""
    ranks = [node.input(index).rank for index in (0, 1)]
    return "" if min(ranks) >= 2 else f"its operands have {ranks[0]} and {ranks[1]} axes; kernels take two or more"


@handles("MatMul", refusal=matmul_refusal)
def matmul(lower: Lowering, node: Node) -> None:
    """FULLY_CONNECTED over the last axis for a constant matrix, else BATCH_MATMUL."""
    right = node.input(1)
    if right.data is not None and right.rank == 2 and node.input(0).data is None:
        fully_connected(lower, node, weights_of(node, 1, axis=1), out_first=False)
    else:
        batch_matmul(lower, node)


def fully_connected(lower: Lowering, node: Node, weights: Value, *, out_first: bool) -> None:
    """Weights become (outputs, inputs); a scrambled flatten before it is undone in their columns."""
    value = node.input(0)
    if not lower.options.per_channel_fc:
        weights = per_tensor(weights)
    assert weights.data is not None
    assert weights.quantization is not None
    matrix = weights.data if out_first else weights.data.T
    scramble = lower.scramble_of(value)
    if scramble is not None:
        matrix = matrix[:, scramble]
    layout = last_axis_layout(lower, value)
    source = lower.operand(value, layout)
    kernel = lower.constant(matrix, replace(weights.quantization, axis=0))
    bias = bias_tensor(lower, node, 2, value, weights)
    output = lower.define(node.output, layout)
    lower.emit(
        "FULLY_CONNECTED",
        (source, kernel, bias),
        (output,),
        fusedActivationFunction=lower.fused_activation(),
        keepNumDims=value.rank > 2,
    )


def last_axis_layout(lower: Lowering, value: Value) -> Layout:
    """The layout a value has, if its last axis is stored last; else the source's own."""
    layout = lower.layout_of(value)
    return layout if layout[-1] == value.rank - 1 and len(layout) == value.rank else identity(value.rank)


def batch_matmul(lower: Lowering, node: Node) -> None:
    """A swap of the last two axes becomes ``adjX`` or ``adjY`` and moves no data."""
    operands, flags = [], []
    for index in (0, 1):
        value = node.input(index)
        if value.data is not None:
            value = per_tensor(value)
        layout = lower.layout_of(value)
        swapped = (*range(value.rank - 2), value.rank - 1, value.rank - 2)
        adjoint = layout == swapped and value.rank > 2
        operands.append(lower.operand(value, swapped if adjoint else identity(value.rank)))
        flags.append(adjoint)
    output = lower.define(node.output, identity(node.output.rank))
    lower.emit("BATCH_MATMUL", operands, (output,), adjX=flags[0], adjY=flags[1])
