"""An oracle for ONNX Runtime artefacts: products in 64-bit integers, rounded as ONNX Runtime's kernels round.

Written from the ONNX operator texts and the documented formula of its integer kernels, in numpy alone: the product of
codes less their zero points is an integer; a requantization multiplies it by one float32 scale and rounds half to even.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

#: Weights that share a scale in MatMulNBits; read from the node.
_PRODUCTS = {"Conv", "Gemm", "MatMul"}


@dataclass(frozen=True)
class Value:
    """A tensor: its real values, and behind them codes (less their zero point) or sums with a scale, if it has any."""

    real: np.ndarray
    integers: np.ndarray | None = None
    scale: np.ndarray | None = None


def exact_outputs(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output of an artefact for one sample."""
    values = {tensor.name: Value(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}
    values |= {name: Value(np.asarray(array)) for name, array in feeds.items()}
    for node in model.graph.node:
        inputs = [values[name] if name else None for name in node.input]
        for name, value in zip(node.output, _run(node, inputs), strict=True):
            values[name] = value
    return {output.name: values[output.name].real for output in model.graph.output}


def _run(node: onnx.NodeProto, inputs: list[Value | None]) -> list[Value]:
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "DequantizeLinear":
        return [_dequantize(attributes, *inputs)]
    if node.op_type == "QuantizeLinear":
        return [_quantize(*inputs)]
    if node.op_type == "MatMulNBits":
        return [_n_bits(attributes, *inputs)]
    if node.op_type == "MatMulInteger":
        a, b, a_zero, b_zero = (item.real.astype(np.int64) for item in inputs)
        return [Value(((a - a_zero) @ (b - b_zero)).astype(np.int32))]
    if node.op_type in _PRODUCTS and all(item.integers is not None for item in inputs[:2]):
        return [_product(node.op_type, attributes, *inputs)]
    arrays = [None if item is None else item.real for item in inputs]
    found = ReferenceEvaluator(node).run(
        None, {name: array for name, array in zip(node.input, arrays, strict=True) if name}
    )
    return [Value(np.asarray(array)) for array in found]


def _dequantize(attributes, codes: Value, scale: Value, zero: Value | None = None) -> Value:
    axis = attributes.get("axis", 1)
    shape = [1] * codes.real.ndim
    if scale.real.ndim:
        shape[axis] = scale.real.size
    scales = scale.real.reshape(shape) if scale.real.ndim else scale.real
    zeros = 0 if zero is None else zero.real.astype(np.int64).reshape(scales.shape)
    integers = codes.real.astype(np.int64) - zeros
    return Value(integers.astype(np.float32) * scales, integers, scales)


def _quantize(value: Value, scale: Value, zero: Value) -> Value:
    limits = np.iinfo(zero.real.dtype)
    if value.integers is None:
        steps = np.rint(value.real.astype(np.float32) / scale.real)
    else:  # one float32 factor for the whole way from sums to codes
        steps = np.rint(value.integers.astype(np.float32) * (value.scale / scale.real).astype(np.float32))
    return Value(np.clip(steps + zero.real, limits.min, limits.max).astype(zero.real.dtype))


def _product(op: str, attributes, a: Value, b: Value, bias: Value | None = None) -> Value:
    if op == "Conv":
        sums = _convolve(a.integers, b.integers, attributes)
        spread = (1, -1, *(1 for _ in range(a.integers.ndim - 2)))
    else:
        left = a.integers.T if attributes.get("transA") else a.integers
        right = b.integers.T if attributes.get("transB") else b.integers
        sums, spread = left @ right, (1, -1)
    scale = (a.scale * b.scale.ravel()).astype(np.float32)
    scale = scale.reshape(spread) if scale.size > 1 else scale.reshape(())
    if bias is not None and bias.integers is not None:
        sums, bias = sums + bias.integers.reshape(spread), None
    real = sums.astype(np.float32) * scale
    if bias is not None:
        return Value(real + bias.real.reshape(spread))
    return Value(real, sums, scale)


def _convolve(x: np.ndarray, w: np.ndarray, attributes) -> np.ndarray:
    """Any rank, groups, strides, dilations and padding; int64."""
    rank = x.ndim - 2
    strides, dilations = (list(attributes.get(name, [1] * rank)) for name in ("strides", "dilations"))
    pads, groups = list(attributes.get("pads", [0] * (2 * rank))), attributes.get("group", 1)
    x = np.pad(x, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    sizes = [
        (extent - dilation * (kernel - 1) - 1) // stride + 1
        for extent, kernel, stride, dilation in zip(x.shape[2:], w.shape[2:], strides, dilations, strict=True)
    ]
    y = np.zeros((x.shape[0], w.shape[0], *sizes), np.int64)
    inside, outside = x.shape[1] // groups, w.shape[0] // groups
    for tap in product(*map(range, w.shape[2:])):
        window = tuple(
            slice(t * d, t * d + s * (size - 1) + 1, s)
            for t, d, s, size in zip(tap, dilations, strides, sizes, strict=True)
        )
        for group in range(groups):
            source = x[:, group * inside : (group + 1) * inside][(slice(None), slice(None), *window)]
            taps = w[group * outside : (group + 1) * outside][(slice(None), slice(None), *tap)]
            y[:, group * outside : (group + 1) * outside] += np.einsum("nc...,oc->no...", source, taps)
    return y


def _n_bits(attributes, a: Value, packed: Value, scales: Value, *_) -> Value:
    """MatMulNBits at accuracy level 4: activations in symmetric int8, one scale a block of a row."""
    bits, block, width, columns = (attributes[name] for name in ("bits", "block_size", "K", "N"))
    stored = packed.real.reshape(columns, -1)
    if bits == 4:
        stored = np.stack([stored & 15, stored >> 4], axis=-1).reshape(columns, -1)
    blocks = -(-width // block)
    weights = stored.astype(np.int64).reshape(columns, blocks, block) - 2 ** (bits - 1)
    rows = a.real.reshape(-1, width).astype(np.float32)
    rows = np.pad(rows, [(0, 0), (0, blocks * block - width)]).reshape(len(rows), blocks, block)
    largest = np.abs(rows).max(axis=2)
    step = largest / np.float32(127)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    codes = np.rint(rows * inverse[..., None]).astype(np.int64)
    sums = np.einsum("rbk,cbk->rcb", codes, weights).astype(np.float64)
    y = (sums * step[:, None, :] * scales.real.reshape(1, columns, blocks)).sum(axis=2)
    return Value(y.astype(np.float32).reshape(*a.real.shape[:-1], columns))
