"""Unary functions without an integer kernel: a table of 256 codes behind a GATHER, exact to half a step.

CAST to int32, ADD 128, GATHER from the constant table (Gelu, HardSigmoid, Erf, Softplus, Mish …).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.exporters.tflite_micro.functions import FUNCTIONS
from edgedeploy.exporters.tflite_micro.ir import Affine
from edgedeploy.exporters.tflite_micro.lowering import Lowering
from edgedeploy.exporters.tflite_micro.ops.activations import same_layout
from edgedeploy.exporters.tflite_micro.qdq import Node
from edgedeploy.exporters.tflite_micro.registry import handles

if TYPE_CHECKING:
    from numpy.typing import NDArray


@handles(*FUNCTIONS)
def table(lower: Lowering, node: Node) -> None:
    """The table holds the output code of each int8 input code."""
    source, output = same_layout(lower, node)
    read, written = lower.model.tensors[source].quantization, lower.model.tensors[output].quantization
    assert read is not None
    assert written is not None
    function = FUNCTIONS[node.op_type]
    codes = lut(lambda x: function(x, node.attributes), read, written)
    gather(lower, source, codes, written, output)


def lut(function: Callable[[Any], Any], read: Affine, written: Affine) -> NDArray[np.int8]:
    """The 256 output codes of a real function, in the order of the input codes -128 … 127."""
    real = (np.arange(-128, 128, dtype=np.float64) - read.zero_point[0]) * float(read.scale[0])
    codes = np.rint(function(real) / float(written.scale[0])) + written.zero_point[0]
    return np.asarray(np.clip(np.nan_to_num(codes), -128, 127), np.int8)


def gather(lower: Lowering, source: int, codes: NDArray[np.int8], written: Affine, output: int) -> None:
    """Look every code of ``source`` up."""
    wide = lower.temporary(source, "index", dtype="int32", quantization=None)
    lower.emit("CAST", (source,), (wide,), inDataType=9, outDataType=2)
    index = lower.temporary(wide, "shifted")
    lower.emit("ADD", (wide, lower.constant(np.asarray([128], np.int32))), (index,))
    lower.emit("GATHER", (lower.constant(codes, written), index), (output,), axis=0)
