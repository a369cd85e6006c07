"""Bring a model into the plain form that the quantizer plans on, without changing what it computes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from edgedeploy.calibration.quantizer.topology import attribute


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which Constant nodes are initializers, every node is named and a Gemm has no alpha or beta."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    _lift_constants(graph)
    names: set[str] = set()
    for place, node in enumerate(graph.node):
        if not node.name or node.name in names:
            node.name = f"{node.op_type}_{place}"
        names.add(node.name)
        if node.op_type == "Gemm":
            _plain_gemm(node, graph)
    return result


def _lift_constants(graph: onnx.GraphProto) -> None:
    kept = []
    for node in graph.node:
        if node.op_type != "Constant":
            kept.append(node)
            continue
        value = onnx.helper.get_attribute_value(node.attribute[0])
        if node.attribute[0].name == "value":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
        else:
            kind = np.int64 if node.attribute[0].name.startswith("value_int") else np.float32
            tensor = numpy_helper.from_array(np.asarray(value, kind), node.output[0])
        graph.initializer.append(tensor)
    if len(kept) != len(graph.node):
        del graph.node[:]
        graph.node.extend(kept)


def _plain_gemm(node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
    """Fold alpha and beta into constants and give the bias one element per column."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    if node.input[1] not in constants or attribute(node, "transA", 0):
        return
    weight = numpy_helper.to_array(constants[node.input[1]])
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    if alpha != 1.0:
        node.input[1] = _add(graph, f"{node.name}_weight", weight * np.float32(alpha))
    bias = node.input[2] if len(node.input) > 2 else ""
    if bias and bias not in constants:
        return
    columns = weight.shape[0 if attribute(node, "transB", 0) else 1]
    if bias:
        values = numpy_helper.to_array(constants[bias])
        if values.size in (1, columns) and (beta != 1.0 or values.shape != (columns,)):
            plain = np.broadcast_to(values.reshape(-1) * np.float32(beta), (columns,))
            node.input[2] = _add(graph, f"{node.name}_bias", plain)
            beta = 1.0
    kept = [item for item in node.attribute if item.name not in {"alpha", "beta"}]
    del node.attribute[:]
    node.attribute.extend(kept)
    if beta != 1.0:
        node.attribute.append(onnx.helper.make_attribute("beta", beta))


def _add(graph: onnx.GraphProto, name: str, values: np.typing.NDArray[np.float32]) -> str:
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
    return name
