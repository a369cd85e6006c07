"""Per-channel weight scales that are a power of two apart, which Hexagon needs beside 16-bit activations.

Seen in the HTP simulator for V68: with 16-bit activations and arbitrary per-channel scales, every output channel is off
by a constant of up to 24 steps of the output (standard deviation 7); with one scale, or with scales a power of two
apart, by less than one. Rounding scales up so costs the weights half a bit on average, and gains more than it costs.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

_TRIED = 8  # bases tried between one power of two and the next


def octaves(
    weights: np.ndarray[tuple[int, ...], np.dtype[np.float32]], limit: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Scales of the form base * 2^k, one a row, that round ``weights`` with the least error.

    Args:
        weights: (channels, elements).
        limit: the largest code. A row may be clipped where finer steps are worth more than its few largest weights.

    """
    rows = weights.astype(np.float64)
    exact = np.abs(rows).max(axis=1) / limit
    live = exact > 0
    exact[~live] = exact[live].mean() if live.any() else 1.0  # no weights: the scale decides only how fine the bias is
    best, least = exact, np.inf
    for fraction in np.arange(_TRIED) / _TRIED:
        base = exact.max() * 2.0**-fraction
        upper = base * np.exp2(np.ceil(np.log2(exact / base) - 1e-9))
        above, below = (_error(rows, scales, limit) for scales in (upper, upper / 2))
        chosen = np.where(above <= below, upper, upper / 2)
        total = float(np.minimum(above, below).sum())
        if total < least:
            best, least = chosen, total
    base32 = np.float32(best.max())
    return np.asarray(base32 * np.exp2(np.rint(np.log2(best / best.max()))), np.float32)


def _error(
    rows: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    scales: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    limit: int,
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    steps = scales[:, None]
    return np.asarray(np.square(np.clip(np.rint(rows / steps), -limit, limit) * steps - rows).sum(axis=1))


def space_scales(model: onnx.ModelProto, originals: onnx.ModelProto) -> int:
    """Requantize, in place, every per-channel weight that multiplies a 16-bit activation; returns how many.

    Args:
        model: a Q/DQ model as `quantize` makes it: a weight W is stored as W_quantized.
        originals: the float model, which has the weights themselves.

    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    floats = {tensor.name: tensor for tensor in originals.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    done: set[str] = set()
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm", "Conv", "ConvTranspose"):
            continue
        activation, weight = (producers.get(name) for name in node.input[:2])
        if activation is None or weight is None or weight.input[0] not in tensors or weight.input[0] in done:
            continue
        scale = numpy_helper.to_array(tensors[weight.input[1]])
        if scale.size < 2 or tensors[activation.input[2]].data_type != TensorProto.UINT16:
            continue
        done.add(weight.input[0])
        spaced = _requantize(tensors, floats, weight, scale)
        bias = producers.get(node.input[2]) if len(node.input) > 2 else None
        if bias is not None and bias.input[0] in tensors and numpy_helper.to_array(tensors[bias.input[1]]).size > 1:
            _rescale_bias(tensors, bias, spaced / scale)
    return len(done)


def _requantize(
    tensors: dict[str, onnx.TensorProto],
    floats: dict[str, onnx.TensorProto],
    node: onnx.NodeProto,
    scale: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    codes = numpy_helper.to_array(tensors[node.input[0]])
    axis = next((item.i for item in node.attribute if item.name == "axis"), 1) % codes.ndim
    along = [-1 if index == axis else 1 for index in range(codes.ndim)]
    source = floats.get(node.input[0].removesuffix("_quantized"))
    values = numpy_helper.to_array(source) if source is not None else codes * scale.reshape(along)
    if values.shape != codes.shape:
        values = codes * scale.reshape(along)
    limit = int(np.iinfo(codes.dtype).max)
    spaced = octaves(np.moveaxis(values, axis, 0).reshape(scale.size, -1), limit)
    again = np.clip(np.rint(values / spaced.reshape(along).astype(np.float64)), -limit, limit).astype(codes.dtype)
    tensors[node.input[0]].CopyFrom(numpy_helper.from_array(again, node.input[0]))
    tensors[node.input[1]].CopyFrom(numpy_helper.from_array(spaced, node.input[1]))
    return spaced


def _rescale_bias(
    tensors: dict[str, onnx.TensorProto],
    node: onnx.NodeProto,
    growth: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> None:
    """A bias is stored in units of input scale times weight scale, so it shrinks as that grows."""
    codes = numpy_helper.to_array(tensors[node.input[0]])
    scale = numpy_helper.to_array(tensors[node.input[1]])
    tensors[node.input[0]].CopyFrom(
        numpy_helper.from_array(np.rint(codes / growth.astype(np.float64)).astype(np.int32), node.input[0])
    )
    tensors[node.input[1]].CopyFrom(numpy_helper.from_array((scale * growth).astype(np.float32), node.input[1]))
