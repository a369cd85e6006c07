"""Activation functions."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - the field's own name for it
from torch import Tensor

from edgedeploy.targets.coreml.registry import Call, Results, op

_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softplus": F.softplus,
    "softsign": F.softsign,
}


def _plain(call: Call) -> Results:
    return _PLAIN[call.operation.type](call.tensor("x"))


op(*_PLAIN)(_plain)


@op("gelu")
def gelu(call: Call) -> Results:
    """Exact (erf), tanh or sigmoid approximation."""
    x = call.tensor("x")
    mode = call.text("mode", "EXACT")
    if mode == "EXACT":
        return F.gelu(x)
    if mode == "TANH_APPROXIMATION":
        return F.gelu(x, approximate="tanh")
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    raise call.wrong(f"gelu mode {mode!r}")


@op("leaky_relu")
def leaky_relu(call: Call) -> Results:
    """X where positive, alpha * x elsewhere."""
    return F.leaky_relu(call.tensor("x"), call.number("alpha", 0.01))


@op("elu")
def elu(call: Call) -> Results:
    """X where positive, alpha * (exp(x) - 1) elsewhere."""
    return F.elu(call.tensor("x"), call.number("alpha", 1.0))


@op("prelu")
def prelu(call: Call) -> Results:
    """leaky_relu with one alpha per channel (axis 1)."""
    return F.prelu(call.tensor("x"), call.tensor("alpha"))


@op("thresholded_relu")
def thresholded_relu(call: Call) -> Results:
    """X where x >= alpha, 0 elsewhere."""
    x = call.tensor("x")
    return torch.where(x >= call.number("alpha", 1.0), x, torch.zeros_like(x))


@op("clamped_relu")
def clamped_relu(call: Call) -> Results:
    """min(beta, leaky_relu(x, alpha))."""
    return F.leaky_relu(call.tensor("x"), call.number("alpha", 1.0)).clamp(max=call.number("beta", 1.0))


@op("linear_activation")
def linear_activation(call: Call) -> Results:
    """Alpha * x + beta."""
    return call.tensor("x") * call.number("alpha", 1.0) + call.number("beta", 0.0)


@op("scaled_tanh")
def scaled_tanh(call: Call) -> Results:
    """Alpha * tanh(beta * x)."""
    return call.number("alpha", 1.0) * torch.tanh(call.number("beta", 1.0) * call.tensor("x"))


@op("sigmoid_hard")
def sigmoid_hard(call: Call) -> Results:
    """Alpha * x + beta, limited to [0, 1]."""
    return (call.tensor("x") * call.number("alpha", 0.2) + call.number("beta", 0.5)).clamp(0, 1)


@op("softplus_parametric")
def softplus_parametric(call: Call) -> Results:
    """Alpha * log(1 + exp(beta * x)) with one alpha and beta per channel (axis 1)."""
    x = call.tensor("x")
    shape = [-1] + [1] * (x.dim() - 2)
    alpha, beta = call.tensor("alpha").reshape(shape), call.tensor("beta").reshape(shape)
    return alpha * F.softplus(beta * x)


@op("softmax")
def softmax(call: Call) -> Results:
    """Softmax along ``axis`` (default the last)."""
    return torch.softmax(call.tensor("x"), call.integer("axis", -1))
