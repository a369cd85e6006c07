"""LayerNormalization in int16 between int8 tensors.

The runtime has no normalization kernel. x → int16, minus its mean, times RSQRT of its variance, times gamma, plus beta,
→ int8: 35-37 dB on trained encoders, where the same in int8 gives 31-33 dB. The inner ranges follow from bounds:
|x - mean| ≤ high - low, variance ≤ (high - low)² / 4 (Popoviciu), |normalized| ≤ √(n - 1).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgedeploy.exporters.tflite_micro.ir import Affine
from edgedeploy.exporters.tflite_micro.lowering import Lowering
from edgedeploy.exporters.tflite_micro.normalise import wide
from edgedeploy.exporters.tflite_micro.ops.activations import axis_last
from edgedeploy.exporters.tflite_micro.qdq import Node
from edgedeploy.exporters.tflite_micro.registry import handles

if TYPE_CHECKING:
    from numpy.typing import NDArray

INT16 = 32767

#: Normalized values beyond this many standard deviations are limited: no trained layer was seen to need them.
LARGEST_DEVIATIONS = 12.0

#: The reciprocal root keeps its precision from this code of the variance on; rows with a smaller variance are damped.
SMALLEST_VARIANCE_CODE = 4


def layer_norm_refusal(node: Node) -> str:
    """Over the last axis, gamma and beta constant, one output."""
    axis = int(node.attributes.get("axis", -1))
    if axis % node.input(0).rank != node.input(0).rank - 1:
        return "only a normalization over the last axis is taken"
    if len(node.outputs) > 1:
        return "mean and deviation as outputs are not taken"
    constants = (node.optional(1), node.optional(2))
    return "its gamma or beta is computed" if any(c is not None and c.data is None for c in constants) else ""


@handles("LayerNormalization", refusal=layer_norm_refusal)
def layer_normalization(lower: Lowering, node: Node) -> None:
    """QUANTIZE, MEAN, SUB, MUL, MEAN, RSQRT, MUL, MUL gamma, ADD beta, QUANTIZE."""
    value = node.input(0)
    layout = axis_last(lower.layout_of(value), value.rank - 1)
    stored = lower.operand(value, layout)
    output = lower.define(node.output, layout)
    read, written = lower.model.tensors[stored].quantization, lower.model.tensors[output].quantization
    assert read is not None
    assert written is not None
    wide_in = read if value.dtype == "int16" else wide(read)
    source = lower.requantized(stored, "int16", wide_in, "wide")
    normalized = _normalized(lower, node, source, _span(read, value.dtype))
    deviations = min(math.sqrt(max(value.shape[-1] - 1, 1)), LARGEST_DEVIATIONS)
    gamma, beta = node.input(1).real.reshape(-1), node.optional(2)
    wide_out = written if node.output.dtype == "int16" else wide(written)
    offset = None if beta is None else beta.real.reshape(-1)
    reach = float(wide_out.scale[0]) * INT16 + (0.0 if offset is None else float(np.abs(offset).max()))
    reach = min(reach, deviations * max(float(np.abs(gamma).max()), 1e-12))
    last = output if node.output.dtype == "int16" else _wide(lower, source, "affine", wide_out)
    if offset is None or not np.any(offset):
        _binary(lower, "MUL", normalized, _constant(lower, gamma), last)
    else:
        scaled = _wide(lower, source, "scaled", Affine.of(reach / INT16))
        _binary(lower, "MUL", normalized, _constant(lower, gamma), scaled)
        _binary(lower, "ADD", scaled, _constant(lower, offset), last)
    if last != output:
        lower.emit("QUANTIZE", (last,), (output,))


def _normalized(lower: Lowering, node: Node, source: int, span: float) -> int:
    """(x - mean) · 1/√(variance + ε) in int16."""
    shape = lower.model.tensors[source].shape
    row = (*shape[:-1], 1)
    axis = lower.vector([len(shape) - 1])
    mean = lower.temporary(source, "mean", shape=row)
    lower.emit("MEAN", (source, axis), (mean,), keepDims=True)
    centred = _binary(lower, "SUB", source, mean, _wide(lower, source, "centred", Affine.of(span / INT16)))
    square = _wide(lower, source, "square", Affine.of(span * span / INT16))
    _binary(lower, "MUL", centred, centred, square)
    scale = span * span / 4 / INT16
    variance = _wide(lower, mean, "variance", Affine.of(scale))
    lower.emit("MEAN", (square, axis), (variance,), keepDims=True)
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    if epsilon > scale / 2:
        shifted = _wide(lower, variance, "shifted", Affine.of(scale + epsilon / INT16))
        variance = _binary(lower, "ADD", variance, _constant(lower, np.asarray([epsilon])), shifted)
    smallest = max(SMALLEST_VARIANCE_CODE * scale, epsilon)
    inverse = _wide(lower, variance, "inverse", Affine.of(1 / math.sqrt(smallest) / INT16))
    lower.emit("RSQRT", (variance,), (inverse,))
    deviations = min(math.sqrt(max(shape[-1] - 1, 1)), LARGEST_DEVIATIONS)
    normalized = _wide(lower, source, "normalized", Affine.of(deviations / INT16))
    return _binary(lower, "MUL", centred, inverse, normalized)


def _span(affine: Affine, dtype: str) -> float:
    """Largest distance between two real values of the codes."""
    return float(affine.scale[0]) * (255 if dtype == "int8" else 2 * INT16)


def _wide(lower: Lowering, like: int, name: str, affine: Affine) -> int:
    return lower.temporary(like, name, dtype="int16", quantization=affine)


def _binary(lower: Lowering, builtin: str, left: int, right: int, output: int) -> int:
    return lower.emit(builtin, (left, right), (output,), fusedActivationFunction=0)


def _constant(lower: Lowering, values: NDArray[np.float64]) -> int:
    scale = np.float32(max(float(np.abs(values).max()), 1e-30) / INT16)
    return lower.constant(np.rint(values / float(scale)).astype(np.int16), Affine.of(scale))
