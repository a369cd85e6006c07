"""Between the captured graph's real values and a model's stored codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.errors import InputError
from edgedeploy.tensors import PortSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray


def stored(port: PortSpec, samples: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Codes of an input over samples, shape (samples, *stored shape).

    Raises:
        InputError: where a sample has another shape than the port.
    """
    batch = np.stack([np.asarray(sample) for sample in samples])
    if port.to_layout:
        batch = batch.transpose((0, *(axis + 1 for axis in port.to_layout)))
    if batch.shape[1:] != tuple(port.shape):
        raise InputError(
            f"The samples of input {port.source_name!r} have another shape than the model.",
            found=f"{batch.shape[1:]} where the model takes {tuple(port.shape)}",
        )
    if port.scale is None or port.zero_point is None:
        return np.ascontiguousarray(batch.astype(port.dtype))
    info = np.iinfo(port.dtype)
    # In float32, as a device computes it: round to even of real / scale.
    codes = np.rint(batch.astype(np.float32) / np.float32(port.scale)) + port.zero_point
    return np.asarray(np.clip(codes, info.min, info.max), port.dtype)


def real(port: PortSpec, codes: NDArray[Any]) -> NDArray[Any]:
    """An output's codes, (samples, *stored shape), as (samples, *shape) in the captured graph's layout."""
    values: NDArray[Any] = codes
    if port.to_layout:
        values = values.transpose((0, *(int(axis) + 1 for axis in np.argsort(port.to_layout))))
    if port.scale is None or port.zero_point is None:
        return values
    return ((values.astype(np.float32) - np.float32(port.zero_point)) * np.float32(port.scale)).astype(np.float32)
