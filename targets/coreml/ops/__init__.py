"""Kernels of MIL ops, one family a file; float16 arrives as float32, and the executor rounds the result.

Semantics follow Apple's op reference (https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html).
"""

from __future__ import annotations

import importlib

FAMILIES = (
    "activation", "compression", "constants", "control_flow", "conv", "elementwise_binary", "elementwise_unary",
    "gather", "lists", "matmul", "normalization", "pool", "recurrent", "reduction", "resample", "resize", "rearrange",
    "scatter", "selection", "shape", "slice", "tensor",
)  # fmt: skip


def load() -> None:
    """Import every family, which registers its kernels."""
    for family in FAMILIES:
        importlib.import_module(f"{__name__}.{family}")
