"""After rewriting: copies and dead nodes out, unused constants out, shapes inferred, the model checked."""

from __future__ import annotations

import onnx
from onnx import shape_inference


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove Identity, dead nodes and unread initializers, then check and infer shapes again."""
    graph = model.graph
    outputs = {output.name for output in graph.output}
    renamed: dict[str, str] = {}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        if node.op_type == "Identity" and node.output[0] not in outputs:
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    alive: list[onnx.NodeProto] = []
    wanted = set(outputs)
    for node in reversed(kept):
        if wanted.intersection(node.output):
            alive.append(node)
            wanted.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(alive))
    used = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.initializer[:]
    graph.initializer.extend(used)
    del graph.value_info[:]
    inferred: onnx.ModelProto = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    onnx.checker.check_model(inferred)
    return inferred
