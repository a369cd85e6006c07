"""Quantized activations, and compressed weights that the program expands once, when it is loaded."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgedeploy.targets.coreml.blobs import unpack_bits
from edgedeploy.targets.coreml.dtypes import ScalarType, named
from edgedeploy.targets.coreml.registry import Call, Results, computing, op


def _along(call: Call, name: str, rank: int, axis: int) -> Tensor:
    """A parameter spread along ``axis``; 0 where it is not given (a zero point)."""
    if name == "zero_point" and not call.has(name):
        return torch.zeros((), dtype=torch.int32)
    value = call.tensor(name)
    if value.numel() == 1:
        return value.reshape(())
    return value.reshape([-1 if place == axis % rank else 1 for place in range(rank)])


@op("quantize")
def quantize(call: Call) -> Results:
    """clip(round(input / scale) + zero_point) to int8 or uint8."""
    x, axis = call.tensor("input"), call.integer("axis", 0)
    scale, zero = _along(call, "scale", x.dim(), axis), _along(call, "zero_point", x.dim(), axis)
    codes = torch.round(x / scale) + zero
    low, high = (0, 255) if named(call.text("output_dtype")) == "uint8" else (-128, 127)
    return codes.clamp(low, high).to(torch.int32)


@op("dequantize")
def dequantize(call: Call) -> Results:
    """(input - zero_point) * scale."""
    x, axis = call.tensor("input"), call.integer("axis", 0)
    scale, zero = _along(call, "scale", x.dim(), axis), _along(call, "zero_point", x.dim(), axis)
    return (x - zero).float() * scale


@op("constexpr_affine_dequantize")
def constexpr_affine_dequantize(call: Call) -> Results:
    """(quantized_data - zero_point) * scale along ``axis``."""
    x, axis = call.tensor("quantized_data"), call.integer("axis", 0)
    scale, zero = _along(call, "scale", x.dim(), axis), _along(call, "zero_point", x.dim(), axis)
    return (x - zero).float() * scale


@op("constexpr_cast")
def constexpr_cast(call: Call) -> Results:
    """A float16 constant as float32."""
    return call.raw("source_val").float()


@op("constexpr_blockwise_shift_scale")
def constexpr_blockwise_shift_scale(call: Call) -> Results:
    """(data - offset) * scale, one scale and offset a block; block sizes follow from the shapes."""
    return _shift_scale(call, call.tensor("data"))


def _shift_scale(call: Call, data: Tensor) -> Tensor:
    scale, offset = _blocks(call, call.tensor("scale"), data), call.optional("offset")
    shifted = data if offset is None else data - _blocks(call, offset, data)
    return shifted.float() * scale


def _blocks(call: Call, values: Tensor, like: Tensor) -> Tensor:
    for axis, size in enumerate(like.shape):
        if size % values.shape[axis]:
            raise call.wrong(f"blocks of {list(values.shape)} do not divide {list(like.shape)}")
        values = values.repeat_interleave(size // values.shape[axis], axis)
    return values


@op("constexpr_lut_to_dense")
def constexpr_lut_to_dense(call: Call) -> Results:
    """Look codes up in a palette: one packed table (iOS 16), or tables per block and vectors (iOS 18)."""
    if call.has("shape"):
        table, shape = call.raw("lut"), call.integers("shape")
        bits = int(np.log2(table.numel()))
        codes = _unpacked(call, "indices", bits, int(np.prod(shape)))
        return table[codes].reshape(shape)
    return _palette(call, call.tensor("indices"))


def _unpacked(call: Call, name: str, bits: int, count: int) -> Tensor:
    scalar = ScalarType(f"uint{bits}", 0, None, bits, np.uint8)
    data = call.raw(name).numpy()
    if data.size * 8 < count * bits:
        raise call.wrong(f"{data.size} bytes hold no {count} codes of {bits} bits")
    return torch.from_numpy(unpack_bits(data, scalar, count)).long()


def _palette(call: Call, codes: Tensor) -> Tensor:
    table = call.raw("lut")
    entries, width = table.shape[-2:]
    blocks = _blocks(call, torch.arange(table[..., 0, 0].numel()).reshape(table.shape[:-2]), codes)
    vectors = table.reshape(-1, entries, width)[blocks, codes.long()]
    if width == 1:
        return vectors.squeeze(-1)
    axis = call.integer("vector_axis") % codes.dim()
    return torch.movedim(vectors, -1, axis + 1).flatten(axis, axis + 1)


@op("constexpr_sparse_to_dense")
def constexpr_sparse_to_dense(call: Call) -> Results:
    """Non-zero values put where a bit mask says: packed (iOS 16) or one element a bit (iOS 18)."""
    if call.has("shape"):
        shape = call.integers("shape")
        mask = _unpacked(call, "mask", 1, int(np.prod(shape))).reshape(shape).bool()
    else:
        mask = call.raw("mask").bool()
    return _dense(call, mask, call.raw("nonzero_data"))


def _dense(call: Call, mask: Tensor, values: Tensor) -> Tensor:
    if int(mask.sum()) != values.numel():
        raise call.wrong(f"a mask of {int(mask.sum())} ones for {values.numel()} values")
    dense = torch.zeros(mask.shape, dtype=values.dtype)
    dense[mask] = values.reshape(-1)
    return dense


@op("constexpr_lut_to_sparse")
def constexpr_lut_to_sparse(call: Call) -> Results:
    """Palette look-up of a sparse tensor's values; gives the mask and the values."""
    mask = call.raw("indices_mask").bool()
    values = _palette(call, computing(_dense(call, mask, call.raw("indices_nonzero_data"))))
    width = call.raw("lut").shape[-1]
    if width > 1:
        mask = mask.repeat_interleave(width, call.integer("vector_axis"))
    return mask.to(torch.uint8), values[mask]


@op("constexpr_sparse_blockwise_shift_scale")
def constexpr_sparse_blockwise_shift_scale(call: Call) -> Results:
    """Block-wise dequantization of a sparse tensor's values; gives the mask and the values."""
    mask = call.raw("data_mask").bool()
    return mask.to(torch.uint8), _shift_scale(call, computing(_dense(call, mask, call.raw("nonzero_data"))))[mask]
