"""Element-wise ops of two tensors, with numpy broadcasting."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgedeploy.targets.coreml.registry import Call, Results, op

_OPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "pow": torch.pow,
    "mod": torch.remainder,  # the sign of the divisor, as numpy and Python
    "floor_div": torch.floor_divide,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "equal": torch.eq,
    "not_equal": torch.ne,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
}


def _binary(call: Call) -> Results:
    x, y = call.tensor("x"), call.tensor("y")
    return _OPS[call.operation.type](x, y)


op(*_OPS)(_binary)


@op("real_div")
def real_div(call: Call) -> Results:
    """X / y; of integers, cut toward zero to the integer type the op declares."""
    x, y = call.tensor("x"), call.tensor("y")
    if x.is_floating_point() or y.is_floating_point():
        return x / y
    return torch.div(x, y, rounding_mode="trunc")
