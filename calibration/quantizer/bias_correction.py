"""Bias correction: take the mean error that rounded weights cause out of the bias.

With W' the rounded weight, a layer's output is off by (W' - W) x, whose mean per output channel is (W' - W) E[x].
E[x] comes from the calibration table's means per channel, so no further pass over the data is needed.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgedeploy.calibration.quantizer.operands import Role, roles
from edgedeploy.calibration.quantizer.plan import Plan
from edgedeploy.calibration.quantizer.selection import bias_add
from edgedeploy.calibration.quantizer.table import RangeTable
from edgedeploy.calibration.quantizer.topology import Topology, attribute, integers

if TYPE_CHECKING:
    from numpy.typing import NDArray


def correct_biases(model: onnx.ModelProto, topology: Topology, plan: Plan, table: RangeTable) -> bool:
    """Correct, in place, the bias of every planned layer whose input's mean per channel is known.

    A convolution or Gemm without a bias gets one; a MatMul is corrected where an Add of a constant follows it.

    Returns:
        True where any bias changed.
    """
    changed = False
    nodes = {node.name: node for node in model.graph.node}
    for node in topology.nodes:
        shift = _shift(node, topology, plan, table)
        if shift is None or not np.any(shift):
            continue
        if node.op_type == "MatMul":
            add = bias_add(node, topology)
            if add is None:
                continue
            position = 0 if add.input[0] in topology.constants else 1
            _replace(model.graph, nodes[add.name], position, topology.value(add.input[position]) - shift)
        else:
            old = topology.value(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros_like(shift)
            _replace(model.graph, nodes[node.name], 2, old - shift)
        changed = True
    return changed


def _shift(node: onnx.NodeProto, topology: Topology, plan: Plan, table: RangeTable) -> NDArray[np.float64] | None:
    """Mean output error per output channel, or ``None`` where the node has no rounded weight or no known mean."""
    if node.op_type not in {"Conv", "ConvTranspose", "Gemm", "MatMul"}:
        return None
    encoding = plan.constants.get((node.name, 1))
    if encoding is None or roles(node, topology)[1] is not Role.WEIGHT:
        return None
    weight = topology.value(node.input[1])
    error = encoding.dequantize(plan.quantized(node.input[1], encoding, weight)).astype(np.float64) - weight
    if node.op_type == "Gemm" and attribute(node, "transB", 0):
        error = error.T
    if error.ndim < 2 or (node.op_type == "MatMul" and error.ndim != 2):
        return None
    groups = int(attribute(node, "group", 1))
    inputs = error.shape[0] if node.op_type in {"Gemm", "MatMul", "ConvTranspose"} else error.shape[1] * groups
    mean = _channel_means(node.input[0], inputs, -1 if node.op_type in {"Gemm", "MatMul"} else 1, topology, table)
    if mean is None:
        return None
    if node.op_type in {"Gemm", "MatMul"}:
        return np.asarray(mean @ error)
    spatial = tuple(range(2, error.ndim))
    if node.op_type == "ConvTranspose":
        strides = integers(node, "strides", [1] * len(spatial))
        taps = error.sum(axis=spatial) / np.prod(strides)
        grouped = np.einsum("gi,gio->go", mean.reshape(groups, -1), taps.reshape(groups, -1, taps.shape[1]))
        return np.asarray(grouped.reshape(-1))
    taps = (error * _coverage(node, topology, error.shape[2:])).sum(axis=spatial)
    grouped = np.einsum("gi,goi->go", mean.reshape(groups, -1), taps.reshape(groups, -1, taps.shape[1]))
    return np.asarray(grouped.reshape(-1))


def _channel_means(
    tensor: str, channels: int, axis: int, topology: Topology, table: RangeTable
) -> NDArray[np.float64] | None:
    statistics = table.statistics(tensor)
    found = statistics.channels
    if found is None or found.mean.shape != (channels,):
        return None
    rank = len(topology.shapes.get(tensor, ()))
    if statistics.name == tensor and rank and found.axis != axis % rank:
        return None
    # Another tensor's statistics hold for this one where only axes of size 1 came or went.
    source = tensor
    while source != statistics.name:
        node = topology.producer[source]
        if node.op_type == "Transpose":
            return None
        source = node.input[0]
    return np.asarray(found.mean, np.float64)


def _coverage(node: onnx.NodeProto, topology: Topology, kernel: tuple[int, ...]) -> NDArray[np.float64]:
    """Share of output positions at which each kernel tap lies on the input and not on its zero padding."""
    sizes = topology.shapes.get(node.input[0], ())[2:]
    pads = integers(node, "pads", [0] * (2 * len(kernel)))
    automatic = any(item.name == "auto_pad" and item.s not in (b"", b"NOTSET", b"VALID") for item in node.attribute)
    if automatic or len(sizes) != len(kernel) or not any(pads):
        return np.ones(kernel)
    strides = integers(node, "strides", [1] * len(kernel))
    dilations = integers(node, "dilations", [1] * len(kernel))
    share = np.ones(())
    for axis, (size, taps) in enumerate(zip(sizes, kernel, strict=True)):
        if size is None:
            along = np.ones(taps)
        else:
            last = size + pads[axis] + pads[axis + len(kernel)] - dilations[axis] * (taps - 1)
            starts = np.arange(0, last, strides[axis])[:, None] - pads[axis]
            place = starts + dilations[axis] * np.arange(taps)
            along = ((place >= 0) & (place < size)).mean(axis=0)
        share = np.multiply.outer(share, along)
    return np.asarray(share)


def _replace(graph: onnx.GraphProto, node: onnx.NodeProto, position: int, values: NDArray[Any]) -> None:
    """Give one operand new values under a name of its own: another layer may share the old ones."""
    name = f"{node.name}_corrected_bias"
    graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
    while len(node.input) <= position:
        node.input.append("")
    node.input[position] = name
