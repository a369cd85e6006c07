"""An entropy calibrator for TensorRT 10 and older that serves batches from our own data and keeps our cache.

TensorRT asks it for the cache first; with one it never asks for a batch, so the ranges are those of the shared
calibration. Without one it runs NVIDIA's own entropy calibration on the same samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.errors import InputError, MissingToolError
from edgedeploy.exporters.tensorrt.cache import CalibrationCache

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Sample = Mapping[str, NDArray[np.generic]]


def entropy_calibrator(
    trt: Any, memory: Any, samples: Iterable[Sample], *, batch_size: int, cache: Path, tensors: Sequence[str] = ()
) -> Any:
    """Return an ``IInt8EntropyCalibrator2`` for ``config.int8_calibrator``.

    Args:
        trt: the ``tensorrt`` module.
        memory: device memory: ``upload(name, array) -> int``, an address that stays valid until the next upload
            under that name (`edgedeploy.exporters.tensorrt.device_build.Cuda` is one).
        samples: one sample each, batch axis of size 1 kept; a last partial batch is left out, as TensorRT wants
            every batch whole.
        batch_size: samples a batch.
        cache: read where it exists, checked against this TensorRT and ``tensors``, and written otherwise.
        tensors: the model's tensor names, so that another model's cache is refused.

    Raises:
        MissingToolError: TensorRT 11 and newer have no calibrators.
    """
    if not hasattr(trt, "IInt8EntropyCalibrator2"):
        raise MissingToolError(
            "A TensorRT with calibrators (10 or older)",
            found=f"TensorRT {trt.__version__}",
            install="Use the explicit Q/DQ model instead; TensorRT 11 takes nothing else.",
        )

    class EntropyCalibrator(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        """Serves batches; the four methods are those of TensorRT's interface."""

        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)
            self._batches = _batches(samples, batch_size)

        def get_batch_size(self) -> int:
            return batch_size

        def get_batch(self, names: Sequence[str]) -> list[int] | None:
            batch = next(self._batches, None)
            if batch is None:
                return None
            unknown = [name for name in names if name not in batch]
            if unknown:
                raise InputError(
                    "The calibration data lacks an input of the network.",
                    found=f"{unknown[0]!r}; the data has {', '.join(batch)}",
                )
            return [int(memory.upload(name, batch[name])) for name in names]

        def read_calibration_cache(self) -> bytes | None:
            if not cache.exists():
                return None
            content = cache.read_bytes()
            CalibrationCache.from_bytes(content, version=_short(trt.__version__), tensors=tensors)
            return content

        def write_calibration_cache(self, content: Any) -> None:
            cache.write_bytes(bytes(content))

    return EntropyCalibrator()


def _short(version: str) -> str:
    return ".".join(version.split(".")[:3])


def _batches(samples: Iterable[Sample], size: int) -> Any:
    held: list[Sample] = []
    for sample in samples:
        held.append(sample)
        if len(held) == size:
            yield {name: np.ascontiguousarray(np.concatenate([s[name] for s in held])) for name in held[0]}
            held = []
