"""Which outputs of a graph look like class scores: those a linear layer or a softmax ends in."""

from __future__ import annotations

import onnx

_PASS_THROUGH = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "Add"})
_SCORES = frozenset({"Gemm", "MatMul", "Softmax", "LogSoftmax"})


def score_outputs(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the rank-2 outputs with at least two columns that end in Gemm, MatMul (+ Add), Softmax or LogSoftmax."""
    producers = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name for tensor in model.graph.initializer}
    found = []
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
        if node is not None and node.op_type in _SCORES:
            found.append(output.name)
    return tuple(found)
