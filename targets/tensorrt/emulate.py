"""ONNX Runtime executes the exact graph that TensorRT is given, node by node, as the numerical stand-in for a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.errors import ToolFailedError
from edgedeploy.graph.as_written import open_as_written
from edgedeploy.states import fed_back
from edgedeploy.tensors import Contract

if TYPE_CHECKING:
    import onnxruntime as ort
    from numpy.typing import NDArray

    from edgedeploy.calibration.dataset import Dataset
    from edgedeploy.progress import Progress


def open_exact(model: Path | bytes) -> ort.InferenceSession:
    """Open a session that changes nothing in the graph.

    Raises:
        ToolFailedError: ONNX Runtime refuses the graph.
    """
    try:
        return open_as_written(model)
    except Exception as error:  # onnxruntime raises bare subclasses of RuntimeError, Fail, InvalidGraph ...
        raise ToolFailedError("ONNX Runtime cannot execute the TensorRT graph.", found=str(error)[:1000]) from error


def emulate(
    model: Path, contract: Contract, samples: Dataset, progress: Progress, states: Mapping[str, str]
) -> dict[str, NDArray[np.generic]]:
    """Run every sample; outputs by captured name, shape (samples, *output shape).

    Args:
        states: input by output: fed back from sample to sample.
    """
    session = open_exact(model)
    outputs: dict[str, list[NDArray[np.generic]]] = {port.source_name: [] for port in contract.outputs}
    names = [port.name for port in contract.outputs]
    last: dict[str, Any] | None = None
    for sample in progress.track(samples, what="emulating TensorRT", total=len(samples)):
        values = session.run(names, feeds(contract, fed_back(sample, last, states)))
        last = {port.source_name: value for port, value in zip(contract.outputs, values, strict=True)}
        for port, value in zip(contract.outputs, values, strict=True):
            outputs[port.source_name].append(value)
    return {name: np.stack(values) for name, values in outputs.items()}


def feeds(contract: Contract, sample: Mapping[str, NDArray[np.generic]]) -> dict[str, Any]:
    """A sample by the artefact's input names."""
    return {port.name: np.ascontiguousarray(sample[port.source_name]) for port in contract.inputs}
