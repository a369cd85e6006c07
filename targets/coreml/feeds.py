"""Samples in the captured graph's terms → a package's inputs, and its outputs back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.errors import InputError
from edgedeploy.tensors import Contract, PortSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray


def feed(
    contract: Contract, details: Mapping[str, Any], sample: Mapping[str, NDArray[np.generic]]
) -> dict[str, NDArray[np.generic]]:
    """One sample in the package's names and types.

    An image input gets the 8-bit pixels that a device would give it: value * std + mean, rounded, as float32
    because that is how a program declares an image.
    """
    image = details.get("image")
    return {port.name: _to_port(port, sample[port.source_name], image) for port in contract.inputs}


def _to_port(port: PortSpec, value: NDArray[np.generic], image: Mapping[str, Any] | None) -> NDArray[np.generic]:
    if image is not None and image["input"] == port.source_name:
        shape = (1, -1, 1, 1)
        mean, std = (np.asarray(image[key], np.float64).reshape(shape) for key in ("mean", "std"))
        pixels: NDArray[np.float32] = np.clip(np.rint(value.astype(np.float64) * std + mean), 0, 255).astype(np.float32)
        return pixels
    if port.dtype == "int32":
        wide = value.astype(np.int64)
        if wide.size and (int(wide.min()) < -(2**31) or int(wide.max()) >= 2**31):
            raise InputError(
                f"Input {port.source_name!r} holds values that do not fit int32, Core ML's only integer input type.",
                found=f"{int(wide.min())} to {int(wide.max())}",
            )
        return wide.astype(np.int32)
    return value.astype(np.float32)


def collect(contract: Contract, details: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """A package's outputs by captured name; a classifier's probabilities in the order of its labels."""
    labels = details.get("labels")
    collected: dict[str, NDArray[Any]] = {}
    for port in contract.outputs:
        if port.name in results:
            value = results[port.name]
        elif labels:
            table = next(value for value in results.values() if isinstance(value, dict))
            value = np.array([[table[label] for label in labels]], np.float32)
        else:
            raise InputError(f"The package has no output {port.name!r}.", found=f"it has {', '.join(results)}")
        collected[port.source_name] = np.asarray(value)
    return collected
