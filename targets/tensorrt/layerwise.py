"""Layer-wise error: where in the graph an exported model departs from the float one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx

from edgedeploy.targets.tensorrt.emulate import open_exact

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)


@dataclass(frozen=True)
class LayerError:
    """One float tensor that both graphs compute.

    Attributes:
        tensor, node, op_type: the tensor and the node that produces it in the float graph.
        sqnr_db: signal to error, accumulated from the input to here, over all samples.
    """

    tensor: str
    node: str
    op_type: str
    sqnr_db: float


def layer_errors(
    exported: onnx.ModelProto,
    reference: onnx.ModelProto,
    samples: Iterable[Mapping[str, NDArray[np.generic]]],
    renamed: Mapping[str, str] | None = None,
) -> tuple[LayerError, ...]:
    """Compare every tensor that the exported graph still computes under its own name, in graph order.

    Args:
        exported: the Q/DQ or float16 model, as it ships.
        reference: the canonical float32 model.
        samples: by captured input name; two to eight are enough.
        renamed: new name by captured name, where the exporter renamed tensors.
    """
    names = dict(renamed or {})
    kept = {name for node in exported.graph.node for name in node.output}
    nodes = [
        (node.output[0], node)
        for node in reference.graph.node
        if node.output and names.get(node.output[0], node.output[0]) in kept
    ]
    floats = _float_tensors(reference)
    tensors = [(name, node) for name, node in nodes if name in floats]
    new, old = (
        open_exact(_exposing(exported, [names.get(name, name) for name, _ in tensors])),
        open_exact(_exposing(reference, [name for name, _ in tensors])),
    )
    signal, noise = np.zeros(len(tensors)), np.zeros(len(tensors))
    for sample in samples:
        wanted = old.run([name for name, _ in tensors], dict(sample))
        feed = {names.get(name, name): value for name, value in sample.items()}
        got = new.run([names.get(name, name) for name, _ in tensors], feed)
        for index, (one, two) in enumerate(zip(wanted, got, strict=True)):
            error = two.astype(np.float64) - one.astype(np.float64)
            signal[index] += float(np.sum(np.square(one, dtype=np.float64)))
            noise[index] += float(np.sum(error * error))
    return tuple(
        LayerError(name, node.name, node.op_type, _db(signal[index], noise[index]))
        for index, (name, node) in enumerate(tensors)
    )


def _db(signal: float, noise: float) -> float:
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal > 0 else float("-inf")


def _float_tensors(model: onnx.ModelProto) -> frozenset[str]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    return frozenset(
        value.name for value in (*graph.value_info, *graph.output) if value.type.tensor_type.elem_type in _FLOATS
    )


def _exposing(model: onnx.ModelProto, tensors: Iterable[str]) -> bytes:
    """The same model with these tensors as further outputs."""
    copy = onnx.shape_inference.infer_shapes(model)
    known = {value.name: value for value in copy.graph.value_info}
    present = {value.name for value in copy.graph.output}
    for name in tensors:
        if name not in present:
            copy.graph.output.append(known.get(name) or onnx.ValueInfoProto(name=name))
    content: bytes = copy.SerializeToString()
    return content
