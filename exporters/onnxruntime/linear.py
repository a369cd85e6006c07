"""Gives every linear layer one form: MatMul with a constant (in, out) weight, then Add.

The dynamic and the weight-only kernels take MatMul only, and onnxruntime's quantizer fails on models that end in
Gemm ("Inferred shape and existing shape differ").
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgedeploy.graph.names import names_read


def gemm_to_matmul(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which each Gemm with a constant weight and float ``alpha = beta = 1`` is MatMul and Add."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes += _split(node, constants) if node.op_type == "Gemm" else [node]
    del graph.node[:]
    graph.node.extend(nodes)
    keep_used(graph, constants)
    return result


def _split(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> list[onnx.NodeProto]:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    plain = attributes.get("alpha", 1.0) == 1.0 and attributes.get("beta", 1.0) == 1.0
    if not plain or attributes.get("transA", 0) or node.input[1] not in constants:
        return [node]
    weight = node.input[1]
    if attributes.get("transB", 0):
        weight = f"{weight}_transposed"
        if weight not in constants:
            values = np.ascontiguousarray(numpy_helper.to_array(constants[node.input[1]]).T)
            constants[weight] = numpy_helper.from_array(values, weight)
    bias = node.input[2] if len(node.input) > 2 else ""
    product = f"{node.output[0]}_product" if bias else node.output[0]
    nodes = [helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name)]
    if bias:
        nodes.append(helper.make_node("Add", [product, bias], [node.output[0]], name=f"{node.name}_bias"))
    return nodes


def keep_used(graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto]) -> None:
    """Make the initializers those of ``constants`` that some node or branch reads, in the order of their names."""
    used = names_read(graph)
    del graph.initializer[:]
    graph.initializer.extend(constants[name] for name in sorted(used & constants.keys()))
