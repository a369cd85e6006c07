"""Small ONNX graphs for the cost model's tests."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.graph.graph import Graph, graph_from_onnx


def model(nodes, inputs, outputs, weights=(), opset=20):
    initializers = [
        numpy_helper.from_array(np.full(shape, 0.01, np.float32), name) for name, shape in dict(weights).items()
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def chain(depth: int, width: int = 32, size: int = 16) -> Graph:
    """``depth`` pairs of a 3×3 convolution and a ReLU."""
    nodes, weights, last = [], {}, "image"
    for index in range(depth):
        weights[f"w{index}"] = (width, 3 if index == 0 else width, 3, 3)
        nodes.append(helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        last = f"r{index}"
    shape = [1, width, size, size]
    return graph_from_onnx(model(nodes, {"image": [1, 3, size, size]}, {last: shape}, weights))
