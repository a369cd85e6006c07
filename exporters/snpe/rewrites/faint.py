"""Channels whose weights vanish beside the others': zero, before their scales overflow Hexagon's arithmetic.

Folding a batch norm leaves such channels where training let a filter die. Their own scale is so small that the bias
needs 30 bits, and the HTP (seen in its simulator) then gives the upper bound of the output for the whole channel.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

#: Relative to the largest channel; 8-bit activations resolve 1/256 of it, so this is a sixteenth of a step.
FAINT = 2.0**-12
_OUTPUT_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0}


def zero_faint_channels(model: onnx.ModelProto) -> int:
    """Zero, in place, every output channel below `FAINT`; returns how many there were."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    zeroed = 0
    for node in model.graph.node:
        if node.op_type not in _OUTPUT_AXIS or node.input[1] not in tensors:
            continue
        tensor = tensors[node.input[1]]
        weights = numpy_helper.to_array(tensor)
        axis = _axis(node)
        others = tuple(index for index in range(weights.ndim) if index != axis)
        size = np.abs(weights).max(axis=others, keepdims=True, initial=0.0)
        faint = (size > 0) & (size < FAINT * size.max(initial=0.0))
        if faint.any():
            zeroed += int(faint.sum())
            tensor.CopyFrom(numpy_helper.from_array(np.where(faint, np.float32(0), weights), tensor.name))
    return zeroed


def _axis(node: onnx.NodeProto) -> int:
    if node.op_type == "Gemm":
        transposed = any(item.name == "transB" and item.i for item in node.attribute)
        return 0 if transposed else 1
    return _OUTPUT_AXIS[node.op_type]
