"""Padding rules shared by convolutions and pools."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgedeploy.targets.coreml.registry import Call


def paddings(call: Call, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """(before, after) per spatial axis; ``kernel`` is the dilated extent.

    "same" splits so that the output has ceil(size / stride) elements, the odd one after; "same_lower" before
    (coremltools ``ops/defs/_utils.py``, ``aggregated_pad``).
    """
    rule = call.text("pad_type", "valid").lower()
    if rule == "valid":
        return [(0, 0)] * len(sizes)
    if rule == "custom":
        pad = call.integers("pad", [0] * 2 * len(sizes))
        return [(pad[2 * axis], pad[2 * axis + 1]) for axis in range(len(sizes))]
    if rule not in ("same", "same_lower"):
        raise call.wrong(f"pad_type {rule!r}")
    result = []
    for size, extent, stride in zip(sizes, kernel, strides, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
        small, large = total // 2, total - total // 2
        result.append((small, large) if rule == "same" else (large, small))
    return result


def torch_order(pads: Sequence[tuple[int, int]]) -> list[int]:
    """The order of ``torch.nn.functional.pad``: last axis first."""
    return [amount for pair in reversed(pads) for amount in pair]
