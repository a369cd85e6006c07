"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgedeploy.targets.coreml.registry import Call, Results, op


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


_OPS: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "reduce_max": torch.amax,
    "reduce_min": torch.amin,
    "reduce_mean": lambda x, axes, keep: (
        x.mean(axes, keep) if x.is_floating_point() else x.double().mean(axes, keep).to(x.dtype)
    ),
    "reduce_sum": lambda x, axes, keep: x.sum(axes, keep, dtype=x.dtype),
    "reduce_sum_square": lambda x, axes, keep: x.square().sum(axes, keep, dtype=x.dtype),
    "reduce_prod": _product,
    "reduce_l1_norm": lambda x, axes, keep: x.abs().sum(axes, keep, dtype=x.dtype),
    "reduce_l2_norm": lambda x, axes, keep: x.float().square().sum(axes, keep).sqrt().to(x.dtype),
    "reduce_log_sum": lambda x, axes, keep: x.float().sum(axes, keep).log().to(x.dtype),
    "reduce_log_sum_exp": lambda x, axes, keep: torch.logsumexp(x.float(), axes, keep).to(x.dtype),
}


def _reduce(call: Call) -> Results:
    x = call.tensor("x")
    axes = call.integers("axes", range(x.dim()))
    if not axes:
        axes = list(range(x.dim()))
    return _OPS[call.operation.type](x, axes, call.flag("keep_dims")) if x.dim() else _scalar(call, x)


def _scalar(call: Call, x: Tensor) -> Tensor:
    return _OPS[call.operation.type](x.reshape(1), [0], False)


op(*_OPS)(_reduce)


@op("reduce_argmax")
def reduce_argmax(call: Call) -> Results:
    """Index of the (first) largest element along ``axis``."""
    return torch.argmax(call.tensor("x"), call.integer("axis", -1), call.flag("keep_dims"))


@op("reduce_argmin")
def reduce_argmin(call: Call) -> Results:
    """Index of the (first) smallest element along ``axis``."""
    return torch.argmin(call.tensor("x"), call.integer("axis", -1), call.flag("keep_dims"))
