"""The vendor package that parses and builds without a GPU, imported only when it is used."""

from __future__ import annotations

import importlib
from typing import Any

from edgedeploy.errors import MissingToolError

INSTALL = "pip install 'edgedeploy[tensorrt-rtx]'"


def tensorrt_rtx() -> Any:
    """Return NVIDIA's TensorRT-RTX module; `MissingToolError` where it is not installed or does not load.

    The wheel set from PyPI is importable as ``tensorrt_rtx_bindings``; NVIDIA's own installer adds ``tensorrt_rtx``.
    """
    reasons = []
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        try:
            return importlib.import_module(name)
        except (ImportError, OSError) as error:
            reasons.append(f"{name}: {error}")
    raise MissingToolError("TensorRT-RTX (NVIDIA's parser and builder)", install=INSTALL, found="; ".join(reasons))
