"""Convolution and transposed convolution, 1-D to 3-D."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from edgedeploy.targets.coreml.ops.padding import paddings, torch_order
from edgedeploy.targets.coreml.registry import Call, Results, op

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@op("conv")
def conv(call: Call) -> Results:
    """Cross-correlation of x (n, C_in, *D) with weight (C_out, C_in / groups, *K)."""
    x, weight = call.tensor("x"), call.tensor("weight")
    axes = x.dim() - 2
    strides = call.integers("strides", [1] * axes)
    dilations = call.integers("dilations", [1] * axes)
    extents = [(size - 1) * step + 1 for size, step in zip(weight.shape[2:], dilations, strict=True)]
    pads = paddings(call, x.shape[2:], extents, strides)
    symmetric = all(before == after for before, after in pads)
    if not symmetric:
        x = F.pad(x, torch_order(pads))
    padding = [before for before, _ in pads] if symmetric else [0] * axes
    return _CONV[axes](x, weight, call.optional("bias"), strides, padding, dilations, call.integer("groups", 1))


@op("conv_transpose")
def conv_transpose(call: Call) -> Results:
    """Transposed convolution of x (n, C_in, *D) with weight (C_in, C_out / groups, *K)."""
    x, weight = call.tensor("x"), call.tensor("weight")
    axes = x.dim() - 2
    strides = call.integers("strides", [1] * axes)
    dilations = call.integers("dilations", [1] * axes)
    groups = call.integer("groups", 1)
    full = _TRANSPOSED[axes](x, weight, None, strides, 0, 0, groups, dilations)
    rule = call.text("pad_type", "valid").lower()
    begins = [0] * axes
    sizes = list(full.shape[2:])
    if rule == "custom":
        pad = call.integers("pad", [0] * 2 * axes)
        begins = pad[0::2]
        sizes = [size - pad[2 * axis] - pad[2 * axis + 1] for axis, size in enumerate(sizes)]
    elif rule == "same":
        sizes = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
        begins = [max(extent - size, 0) // 2 for extent, size in zip(full.shape[2:], sizes, strict=True)]
    elif rule != "valid":
        raise call.wrong(f"pad_type {rule!r}")
    if call.has("output_shape"):
        sizes = call.integers("output_shape")[-axes:]
    # An output longer than the full extent has nothing under its tail but the bias.
    missing = [
        (0, max(begin + size - extent, 0)) for begin, size, extent in zip(begins, sizes, full.shape[2:], strict=True)
    ]
    full = F.pad(full, torch_order(missing))
    for axis, (begin, size) in enumerate(zip(begins, sizes, strict=True)):
        full = torch.narrow(full, axis + 2, begin, size)
    bias = call.optional("bias")
    return full if bias is None else full + bias.reshape([-1] + [1] * axes)
