"""Inputs that a data set seldom holds and a device will see: silence, a constant, an overdriven and a faint signal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.tensors import TensorSpec

_LARGE, _TINY = 1e3, 1e-6
#: A few units in the last place of float32: what two right ways to compute may differ by at any step.
_ROUNDING = 2.0**-21


@dataclass(frozen=True)
class Probe:
    """One made-up sample; ``name`` completes the sentence "on an input of …"."""

    name: str
    sample: Mapping[str, NDArray[np.generic]]


def probes(
    inputs: Sequence[TensorSpec], example: Mapping[str, NDArray[np.generic]], largest: Mapping[str, int]
) -> list[Probe]:
    """Zeros, ones, the example a thousand times as large, and a millionth of it.

    Args:
        inputs: of the model, batch of 1.
        example: a sample that the model takes.
        largest: by integer input, the largest value known to be valid; the first such input's example gives way to it
            beside large floats, and to 0 and 1 (where that is no larger) beside zeros and ones.
    """

    def of(name: str, floating: float | None, scale: float, integer: int | None) -> Probe:
        sample: dict[str, NDArray[np.generic]] = {}
        for spec in inputs:
            value = np.asarray(example[spec.name])
            if value.dtype.kind == "f":
                made = value * scale if floating is None else np.full(value.shape, floating)
            elif value.dtype.kind == "b":
                made = value if integer is None else np.full(value.shape, bool(integer))
            else:
                most = largest.get(spec.name, 0)
                made = np.full(value.shape, most if integer is None else min(integer, most))
            sample[spec.name] = made.astype(value.dtype)
        return Probe(name, sample)

    made = [of("zeros", 0.0, 1, 0), of("ones", 1.0, 1, 1), of("large values", None, _LARGE, None)]
    if any(np.asarray(example[spec.name]).dtype.kind == "f" for spec in inputs):
        made.append(of("tiny values", None, _TINY, 0))
    return made


def shaken(
    sample: Mapping[str, NDArray[np.generic]], example: Mapping[str, NDArray[np.generic]], seed: int
) -> dict[str, NDArray[np.generic]]:
    """The sample with every float moved by a few units in the last place of the larger of itself and the example."""
    generator = np.random.default_rng(seed)
    result: dict[str, NDArray[np.generic]] = {}
    for name, given in sample.items():
        value = np.asarray(given)
        if value.dtype.kind != "f" or not value.size:
            result[name] = value
            continue
        scale = max(float(np.abs(value).max()), float(np.abs(np.asarray(example[name])).max(initial=0.0)))
        noise = generator.uniform(-1, 1, value.shape) * _ROUNDING * scale
        result[name] = (value + noise).astype(value.dtype)
    return result
