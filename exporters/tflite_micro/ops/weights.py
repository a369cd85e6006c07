"""Weights and biases as the integer kernels want them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgedeploy.errors import InputError
from edgedeploy.exporters.tflite_micro.ir import Affine
from edgedeploy.exporters.tflite_micro.lowering import Lowering
from edgedeploy.exporters.tflite_micro.qdq import Node, Value


def weight_refusal(node: Node, index: int) -> str:
    """Weights must be constants of the model."""
    return "" if node.input(index).data is not None else "its weights are computed at run time"


def weights_of(node: Node, index: int, axis: int) -> Value:
    """The int8 weights, a scale per entry of ``axis`` or one for all; zero points are 0.

    Raises:
        InputError: for float or asymmetric weights, or scales along another axis.
    """
    value = node.input(index)
    affine = value.quantization
    if affine is None or value.dtype != "int8":
        raise InputError(
            f"The weights {value.name!r} of {node.op_type} at {node.name!r} are not int8.",
            found=value.dtype,
            remedy="Quantize with the scheme 'tflite' (or 'tflite-int16x8'); this backend has no float kernels.",
        )
    if np.any(affine.zero_point):
        raise InputError(
            f"The weights {value.name!r} of {node.op_type} at {node.name!r} have a zero point that is not 0.",
            found=str(affine),
            remedy="TFLite kernels take symmetric weights; use the scheme 'tflite'.",
        )
    if affine.per_channel and affine.axis != axis % value.rank:
        raise InputError(
            f"The weights {value.name!r} of {node.op_type} at {node.name!r} are quantized along the wrong axis.",
            found=str(affine),
            remedy=f"TFLite kernels take scales along the output channels, axis {axis % value.rank} here.",
        )
    return value


def per_tensor(value: Value) -> Value:
    """The same weights with one scale for all."""
    if value.quantization is None or not value.quantization.per_channel:
        return value
    real = value.real
    scale = np.float32(max(float(np.abs(real).max()), 1e-30) / 127)
    data = np.clip(np.rint(real / float(scale)), -127, 127).astype(np.int8)
    return replace(value, quantization=Affine.of(scale), data=data)


def bias_tensor(lower: Lowering, node: Node, index: int, value: Value, weights: Value) -> int:
    """A bias in units of input scale times weight scale: int32, int64 beside int16 activations; zeros if none.

    The kernels are fastest and LiteRT's int16 ones only right with a bias, so there always is one.
    """
    assert value.quantization is not None
    assert weights.quantization is not None
    scale = value.quantization.scale.astype(np.float64)[0] * weights.quantization.scale.astype(np.float64)
    channels = node.output.shape[1] if node.op_type.startswith("Conv") else node.output.shape[-1]
    # A grouped ConvTranspose has one weight scale for the same channel of every group.
    affine = Affine.of(np.tile(scale, channels // scale.size) if weights.quantization.per_channel else scale)
    dtype = np.dtype("int64" if value.dtype == "int16" else "int32")
    bias = node.optional(index)
    if bias is None:
        return lower.constant(np.zeros(channels, dtype), affine)
    if bias.data is None:
        raise InputError(f"{node.op_type} at {node.name!r} computes its bias at run time.")
    codes = np.rint(np.broadcast_to(bias.real.reshape(-1), (channels,)) / affine.scale.astype(np.float64))
    info = np.iinfo(dtype)
    return lower.constant(np.clip(codes, info.min, info.max).astype(dtype), affine)
