"""Matrix products and fused attention."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812

from edgedeploy.targets.coreml.registry import Call, Results, computing, op


@op("linear")
def linear(call: Call) -> Results:
    """X @ weight.T + bias; weight (outputs, inputs)."""
    return F.linear(call.tensor("x"), call.tensor("weight"), call.optional("bias"))


@op("matmul")
def matmul(call: Call) -> Results:
    """Batched matrix product, either side transposed on request; a vector gains an axis, as in numpy."""
    x, y = call.tensor("x"), call.tensor("y")
    if call.flag("transpose_x") and x.dim() > 1:
        x = x.mT
    if call.flag("transpose_y") and y.dim() > 1:
        y = y.mT
    return torch.matmul(x, y)


@op("einsum")
def einsum(call: Call) -> Results:
    """Einstein summation of its values."""
    return torch.einsum(call.text("equation"), *(computing(value) for value in call.many("values")))


@op("scaled_dot_product_attention")
def scaled_dot_product_attention(call: Call) -> Results:
    """softmax(Q Kᵀ / sqrt(E) + mask) V; a boolean mask says what takes part."""
    query, key, value = (call.tensor(name) for name in ("query", "key", "value"))
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    mask = call.optional("attn_mask")
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return torch.softmax(scores, -1) @ value
