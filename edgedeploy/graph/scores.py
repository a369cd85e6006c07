"""Which outputs of a graph look like class scores: those a linear layer or a softmax ends in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PASS_THROUGH = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "Add"})
_LINEAR = frozenset({"Gemm", "MatMul"})
_SOFTMAX = frozenset({"Softmax", "LogSoftmax"})
#: A classifier is sure of itself: the mean of its largest probability. Offsets and quality scores (values of a few
#: units at most, near each other) stay below.
_SURE = 0.6
#: Logits of one layer have spreads of one size; metres and radians have not.
_ONE_SIZE = 10.0


def score_outputs(model: onnx.ModelProto) -> dict[str, bool]:
    """The rank-2 outputs with at least two columns that end in a linear layer (False) or a softmax (True), by name.

    A softmax written in single ops (Exp, ReduceSum, Div) is one. What ends in a linear layer may be classes or numbers
    of any other kind: `evident_classes` asks the values.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name for tensor in model.graph.initializer}
    found = {}
    for output in model.graph.output:
        dims = output.type.tensor_type.shape.dim
        if len(dims) != 2 or (dims[1].HasField("dim_value") and dims[1].dim_value < 2):
            continue
        node = producers.get(output.name)
        while node is not None and node.op_type in _PASS_THROUGH:
            runtime = [name for name in node.input if name and name not in constants]
            # A residual Add of two run-time tensors is no bias: the output is a representation.
            if len(runtime) != 1 and node.op_type == "Add":
                break
            node = producers.get(runtime[0]) if runtime else None
        if node is None:
            continue
        softmax = node.op_type in _SOFTMAX or _is_spelt_softmax(node, producers)
        if softmax or node.op_type in _LINEAR:
            found[output.name] = softmax
    return found


def evident_classes(values: NDArray[Any]) -> bool:
    """True where outputs of a linear layer, shape (samples, …, columns), behave as logits.

    Their columns are of one size, and one is clearly the largest, not always the same one.
    """
    logits = np.asarray(values, np.float64).reshape(-1, values.shape[-1])
    logits = np.where(np.isfinite(logits), logits, -np.inf)
    top = logits.max(1, keepdims=True)
    usable = np.isfinite(top[:, 0])
    if usable.sum() < 2:
        return False
    powers = np.exp(logits[usable] - top[usable])
    sure = float((powers.max(1) / powers.sum(1)).mean())
    finite = np.isfinite(logits).all(0)
    spreads = logits[:, finite].std(0) if finite.any() else np.zeros(1)
    one_size = bool(spreads.max() <= _ONE_SIZE * max(float(np.median(spreads)), 1e-12))
    return sure >= _SURE and one_size and len(np.unique(logits[usable].argmax(1))) > 1


def _is_spelt_softmax(node: onnx.NodeProto, producers: dict[str, onnx.NodeProto]) -> bool:
    """Exp divided by its own sum."""
    if node.op_type != "Div":
        return False
    powers, total = (producers.get(name) for name in node.input[:2])
    return (
        powers is not None
        and powers.op_type == "Exp"
        and total is not None
        and total.op_type == "ReduceSum"
        and total.input[0] == node.input[0]
    )
