"""Element-wise ops of one tensor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgedeploy.targets.coreml.dtypes import named
from edgedeploy.targets.coreml.registry import TORCH, Call, Results, op

_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "floor": torch.floor,
    "logical_not": torch.logical_not,
    "round": torch.round,  # half to even, as numpy
    "sign": torch.sign,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
    "tanh": torch.tanh,
}


def _plain(call: Call) -> Results:
    return _PLAIN[call.operation.type](call.tensor("x"))


op(*_PLAIN)(_plain)


@op("exp2")
def exp2(call: Call) -> Results:
    """2**x, integers included."""
    x = call.tensor("x")
    return torch.exp2(x) if x.is_floating_point() else torch.exp2(x.double()).to(x.dtype)


@op("log")
def log(call: Call) -> Results:
    """Natural logarithm of x + epsilon."""
    return torch.log(call.tensor("x") + call.number("epsilon", 1e-45))


@op("rsqrt")
def rsqrt(call: Call) -> Results:
    """1 / sqrt(x + epsilon)."""
    return torch.rsqrt(call.tensor("x") + call.number("epsilon", 1e-12))


@op("inverse")
def inverse(call: Call) -> Results:
    """1 / (x + epsilon)."""
    return torch.reciprocal(call.tensor("x") + call.number("epsilon", 1e-4))


@op("clip")
def clip(call: Call) -> Results:
    """Limit to [alpha, beta]."""
    return torch.clamp(call.tensor("x"), call.number("alpha"), call.number("beta"))


@op("threshold")
def threshold(call: Call) -> Results:
    """max(x, alpha)."""
    return torch.clamp(call.tensor("x"), min=call.number("alpha"))


@op("cast")
def cast(call: Call) -> Results:
    """Convert; float to integer cuts toward zero, anything but zero is true."""
    x = call.tensor("x")
    name = named(call.text("dtype"))
    if name not in TORCH:
        raise call.wrong(f"cast to {name!r}")
    if name == "bool":
        return x != 0
    # The executor does the rounding to float16 itself, so that it is seen by observers and skipped in float32 mode.
    return x.to(torch.float32 if name == "float16" else TORCH[name])
