"""Run a float or Q/DQ graph in ONNX Runtime as written, with every optimization off, to measure what rounding does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from edgedeploy.compare import compare
from edgedeploy.graph.as_written import open_as_written

if TYPE_CHECKING:
    import onnxruntime
    from numpy.typing import NDArray

    from edgedeploy.graph.graph import Graph

Samples = Iterable[Mapping[str, "NDArray[Any]"]]


def simulate(graph: Graph | onnx.ModelProto, samples: Samples, *, threads: int = 0) -> dict[str, NDArray[Any]]:
    """Outputs of a graph, computed node by node.

    Nothing of it depends on the CPU's integer kernels (`edgedeploy.graph.as_written`).

    Args:
        graph: a `Graph` or a model.
        samples: feeds, by input name.
        threads: of one inference; 0 lets ONNX Runtime choose.

    Returns:
        By output name, the outputs of all samples, shape (samples, *output shape).
    """
    return Simulator(graph, optimized=False, threads=threads).run(samples)


class Simulator:
    """A session that is made once and run on several sets of samples.

    Args:
        graph: a `Graph` or a model.
        optimized: let ONNX Runtime optimize; right for float graphs only.
        threads: of one inference; 0 lets ONNX Runtime choose.
    """

    def __init__(self, graph: Graph | onnx.ModelProto, *, optimized: bool, threads: int = 0) -> None:
        content = (graph if isinstance(graph, onnx.ModelProto) else graph.model).SerializeToString()
        self._session = _optimized(content, threads) if optimized else open_as_written(content, threads=threads)
        self._outputs = [value.name for value in self._session.get_outputs()]

    def run(self, samples: Samples) -> dict[str, NDArray[Any]]:
        """Outputs of all samples by name, shape (samples, *output shape)."""
        results = [self._session.run(self._outputs, dict(sample)) for sample in samples]
        return {name: np.stack([result[place] for result in results]) for place, name in enumerate(self._outputs)}


def _optimized(content: bytes, threads: int) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def sqnr_db(reference: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> float:
    """Signal-to-quantization-noise ratio in dB over all float outputs; infinite where they are equal.

    Each output counts with its own signal: the noise-to-signal ratios are averaged, so that a large output does not
    hide what happens to a small one.
    """
    ratios = []
    for name, values in reference.items():
        if values.dtype.kind != "f":
            continue
        signal = float(np.square(values, dtype=np.float64).sum())
        noise = float(np.square(values.astype(np.float64) - outputs[name]).sum())
        ratios.append(noise / signal if signal else float(noise > 0))
    mean = float(np.mean(ratios)) if ratios else 0.0
    return float("inf") if mean == 0 else -10 * float(np.log10(mean))


def judged_db(reference: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> float:
    """As `sqnr_db`, measured as the judge does: each group of channels by its own spread over the samples."""
    found = compare(reference, outputs)
    if any(item.broken_samples for item in found):
        return -math.inf
    ratios = [10 ** min(-group.sqnr_db / 10, 300.0) for item in found for group in item.groups]
    mean = float(np.mean(ratios)) if ratios else 0.0
    return math.inf if mean == 0 else -10 * math.log10(mean)
