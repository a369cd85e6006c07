"""Weights that are no numbers are refused by name, before they turn every later figure into NaN."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgedeploy.errors import InputError

if TYPE_CHECKING:
    import onnx
    import torch


def check_finite(path: Path, module: torch.nn.Module) -> None:
    """Refuse NaN and Inf in parameters, and NaN and +Inf in buffers (-Inf there is a mask's way to say 'never').

    Raises:
        InputError: naming the tensors.
    """
    import torch

    bad = []
    for kind, tensors in (("parameter", module.named_parameters()), ("buffer", module.named_buffers())):
        for name, tensor in tensors:
            if not tensor.is_floating_point() or tensor.numel() == 0:
                continue
            low, high = torch.aminmax(tensor.detach())
            lowest, highest = float(low), float(high)
            if np.isnan(lowest) or highest == np.inf or (kind == "parameter" and lowest == -np.inf):
                bad.append(f"{kind} {name!r} ({_what(lowest, highest)})")
    _refuse(path, bad)


def check_finite_onnx(path: Path, model: onnx.ModelProto) -> None:
    """Refuse NaN and +Inf in the initializers (-Inf is a mask's way to say 'never').

    Raises:
        InputError: naming the initializers.
    """
    import onnx

    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    bad = []
    for tensor in model.graph.initializer:
        if tensor.data_type in floats:
            values = onnx.numpy_helper.to_array(tensor)
            if values.size and (np.isnan(low := float(values.min())) or float(values.max()) == np.inf):
                bad.append(f"initializer {tensor.name!r} ({_what(low, float(values.max()))})")
    _refuse(path, bad)


def _what(low: float, high: float) -> str:
    return "NaN" if np.isnan(low) or np.isnan(high) else "Inf"


def _refuse(path: Path, bad: list[str]) -> None:
    if bad:
        more = f" and {len(bad) - 8} more" if len(bad) > 8 else ""
        raise InputError(
            f"{len(bad)} weight(s) in {str(path)!r} are not finite numbers.",
            found=", ".join(bad[:8]) + more,
            remedy="The training run diverged or the file is damaged: take an earlier checkpoint.",
        )
