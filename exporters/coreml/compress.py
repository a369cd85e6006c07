"""Weight compression and W8A8 through coremltools' own optimizer; activation ranges from our executor."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.exporters.coreml.convert import quiet
from edgedeploy.targets.coreml.vendor import coremltools

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from edgedeploy.targets.coreml.program import Operation

#: Elements per scale of int4 weights.
BLOCK_SIZE = 32


def compress_weights(model: Any, weights: str) -> Any:
    """Return the model with int8 (per channel), int4 (per block of 32) or palettized (k-means) weights.

    A small weight (under 2,048 elements) stays float16, which is coremltools' own default.
    """
    ct = coremltools()
    if weights in ("float16", "float32"):
        return model
    optimizer = ct.optimize.coreml
    with quiet():
        if weights == "int8":
            config = optimizer.OptimizationConfig(optimizer.OpLinearQuantizerConfig(mode="linear_symmetric"))
            return optimizer.linear_quantize_weights(model, config)
        if weights == "int4":
            config = optimizer.OptimizationConfig(
                optimizer.OpLinearQuantizerConfig(
                    mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=BLOCK_SIZE
                )
            )
            return optimizer.linear_quantize_weights(model, config)
        bits = int(weights.removeprefix("palette"))
        config = optimizer.OptimizationConfig(optimizer.OpPalettizerConfig(mode="kmeans", nbits=bits))
        return optimizer.palettize_weights(model, config)


def quantize_activations(model: Any, feeds: Iterable[Mapping[str, NDArray[Any]]]) -> Any:
    """Return the float16 model with int8 quantize/dequantize pairs around its activations.

    coremltools calibrates by predicting, which needs a Mac, and keeps the range of the last sample only. The
    ranges here come from our executor, over all samples.

    Args:
        model: an ``MLModel`` that is not compressed yet.
        feeds: calibration samples in the package's names and types.
    """
    ct = coremltools()
    from coremltools.optimize.coreml import _post_training_quantization as quantization

    samples = iter(feeds)
    first = next(samples)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.mlpackage"
        with quiet():
            model.save(str(path))
        ranges = activation_ranges(path, itertools.chain([first], samples))
    optimizer = ct.optimize.coreml
    config = optimizer.OptimizationConfig(
        optimizer.experimental.OpActivationLinearQuantizerConfig(mode="linear_symmetric")
        if hasattr(optimizer, "experimental")
        else optimizer.OpLinearQuantizerConfig(mode="linear_symmetric")
    )
    original = quantization._get_activation_calibration_stats
    quantization._get_activation_calibration_stats = lambda *_, **__: ranges
    try:
        with quiet():
            return quantization.linear_quantize_activations(model, config, [dict(first)])
    finally:
        quantization._get_activation_calibration_stats = original


def activation_ranges(path: Path, samples: Iterable[Mapping[str, NDArray[Any]]]) -> dict[str, dict[str, float]]:
    """Smallest and largest value of every tensor of a saved program, {"rmin", "rmax"} by tensor name."""
    from edgedeploy.targets.coreml.executor import Executor

    ranges: dict[str, dict[str, float]] = {}

    def widen(name: str, low: float, high: float) -> None:
        known = ranges.setdefault(name, {"rmin": low, "rmax": high})
        known["rmin"], known["rmax"] = min(known["rmin"], low), max(known["rmax"], high)

    def observe(operation: Operation, index: int, value: Tensor) -> None:
        if value.is_floating_point() and value.numel():
            widen(operation.outputs[index].name, float(value.min()), float(value.max()))

    executor = Executor(path, observer=observe)
    for sample in samples:
        for name, array in sample.items():
            widen(name, float(array.min()), float(array.max()))
        executor.run(sample)
    return ranges
