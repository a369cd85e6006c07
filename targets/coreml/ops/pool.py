"""Average, maximum and L2 pooling, 1-D to 3-D."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from edgedeploy.targets.coreml.ops.padding import paddings, torch_order
from edgedeploy.targets.coreml.registry import Call, Results, op

_MAX: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Callable[..., Any]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _window(call: Call, x: Tensor) -> tuple[list[int], list[int], list[tuple[int, int]], list[int]]:
    """Kernel, strides, declared paddings, and what ``ceil_mode`` adds after each axis."""
    axes = x.dim() - 2
    kernel = call.integers("kernel_sizes")
    strides = call.integers("strides", [1] * axes)
    pads = paddings(call, x.shape[2:], kernel, strides)
    extra = [0] * axes
    if call.flag("ceil_mode"):
        for axis, size in enumerate(x.shape[2:]):
            before, after = pads[axis]
            span = size + before + after - kernel[axis]
            count = -(-span // strides[axis]) + 1
            # A last window that would start in the padding after the input does not exist (as in PyTorch).
            if (count - 1) * strides[axis] >= size + before:
                count -= 1
            extra[axis] = max((count - 1) * strides[axis] + kernel[axis] - (size + before + after), 0)
    return kernel, strides, pads, extra


def _padded(x: Tensor, pads: Sequence[tuple[int, int]], extra: Sequence[int], value: float) -> Tensor:
    widths = [(before, after + more) for (before, after), more in zip(pads, extra, strict=True)]
    return F.pad(x, torch_order(widths), value=value) if any(sum(pair) for pair in widths) else x


@op("max_pool")
def max_pool(call: Call) -> Results:
    """Largest element of each window; padding never wins."""
    x = call.tensor("x")
    kernel, strides, pads, extra = _window(call, x)
    return _MAX[x.dim() - 2](_padded(x, pads, extra, -torch.inf), kernel, strides)


@op("avg_pool")
def avg_pool(call: Call) -> Results:
    """Mean of each window; declared padding counts unless excluded, what ceil_mode adds never does."""
    x = call.tensor("x")
    kernel, strides, pads, extra = _window(call, x)
    pool = _AVERAGE[x.dim() - 2]
    total = pool(_padded(x, pads, extra, 0.0), kernel, strides)
    exclude = call.flag("exclude_padding_from_average")
    if not any(extra) and not (exclude and any(map(sum, pads))):
        return total
    ones = torch.ones((1, 1, *x.shape[2:]))
    if not exclude:
        ones = _padded(ones, pads, [0] * len(extra), 1.0)
        counted = _padded(ones, [(0, 0)] * len(extra), extra, 0.0)
    else:
        counted = _padded(ones, pads, extra, 0.0)
    return total / pool(counted, kernel, strides)


@op("l2_pool")
def l2_pool(call: Call) -> Results:
    """Square root of the sum of squares of each window."""
    x = call.tensor("x")
    kernel, strides, pads, extra = _window(call, x)
    mean = _AVERAGE[x.dim() - 2](_padded(x.square(), pads, extra, 0.0), kernel, strides)
    return torch.sqrt(mean * torch.Size(kernel).numel())
