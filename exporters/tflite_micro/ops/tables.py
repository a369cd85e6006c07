"""Unary functions without an integer kernel: a table of 256 codes behind a GATHER, exact to half a step.

CAST to int32, ADD 128, GATHER from the constant table (Gelu, HardSigmoid, Erf, Softplus, Mish …).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from edgedeploy.exporters.tflite_micro.ir import Affine
from edgedeploy.exporters.tflite_micro.lowering import Lowering
from edgedeploy.exporters.tflite_micro.ops.activations import same_layout
from edgedeploy.exporters.tflite_micro.qdq import Node
from edgedeploy.exporters.tflite_micro.registry import handles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Function = Callable[[Any, "Mapping[str, Any]"], Any]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _gelu(x: Any, attributes: Mapping[str, Any]) -> Any:
    if attributes.get("approximate", "none") == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _softplus(x: Any, _: Mapping[str, Any]) -> Any:
    return np.logaddexp(x, 0.0)


#: op type → f(real input, node attributes); the defaults are ONNX's (onnx.ai/onnx/operators).
FUNCTIONS: dict[str, Function] = {
    "Gelu": _gelu,
    "HardSigmoid": lambda x, a: np.clip(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0, 1),
    "Erf": lambda x, _: _erf(x),
    "Softplus": _softplus,
    "Mish": lambda x, a: x * np.tanh(_softplus(x, a)),
    "Elu": lambda x, a: np.where(x > 0, x, a.get("alpha", 1.0) * np.expm1(np.minimum(x, 0))),
    "Selu": lambda x, a: (
        a.get("gamma", 1.0507009873554805)
        * np.where(x > 0, x, a.get("alpha", 1.6732632423543772) * np.expm1(np.minimum(x, 0)))
    ),
    "Celu": lambda x, a: np.maximum(x, 0) + np.minimum(0, a.get("alpha", 1.0) * np.expm1(x / a.get("alpha", 1.0))),
    "Softsign": lambda x, _: x / (1 + np.abs(x)),
    "Exp": lambda x, _: np.exp(np.minimum(x, 700.0)),
    "Log": lambda x, _: np.log(np.maximum(x, 1e-30)),
    "Sqrt": lambda x, _: np.sqrt(np.maximum(x, 0)),
    "Reciprocal": lambda x, _: 1 / np.where(x == 0, 1e-30, x),
    "Neg": lambda x, _: -x,
    "Sin": lambda x, _: np.sin(x),
    "Cos": lambda x, _: np.cos(x),
    "Floor": lambda x, _: np.floor(x),
    "Ceil": lambda x, _: np.ceil(x),
    "Round": lambda x, _: np.rint(x),
}


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
