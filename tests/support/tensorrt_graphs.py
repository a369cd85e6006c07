"""Small graphs for the TensorRT tests."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def model(nodes, inputs, outputs, constants, opset=20):
    """A checked model from nodes, (name, dtype, shape) ports and arrays by name."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*port) for port in inputs],
        [helper.make_tensor_value_info(*port) for port in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    result = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    result.ir_version = 9
    return result


def quantized_conv(zero_point=0, dtype=np.int8, scale=0.02, weight_type=np.int8, channels=32):
    """image -> Q -> DQ -> Conv(DQ weights) -> Relu -> result."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["image_q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["image_q", "scale", "zero"], ["image_dq"], name="dequantize"),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_dq"], name="weights", axis=0),
        helper.make_node("Conv", ["image_dq", "w_dq"], ["conv"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["result"], name="relu"),
    ]
    constants = {
        "scale": np.float32(scale),
        "zero": dtype(zero_point),
        "w": rng.integers(0 if weight_type is np.uint8 else -127, 127, (channels, 32, 3, 3)).astype(weight_type),
        "w_scale": np.full(channels, 0.01, np.float32),
        "w_zero": np.zeros(channels, weight_type),
    }
    size = TensorProto.FLOAT
    return model(nodes, [("image", size, [1, 32, 16, 16])], [("result", size, [1, channels, 16, 16])], constants)


def runtime_scale():
    """The scale comes from an input: this kills the builder."""
    result = quantized_conv()
    result.graph.input.append(helper.make_tensor_value_info("scale", TensorProto.FLOAT, []))
    kept = [tensor for tensor in result.graph.initializer if tensor.name != "scale"]
    del result.graph.initializer[:]
    result.graph.initializer.extend(kept)
    return result


def gather_then_dequantize():
    """Parses, and then fails to build."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], name="gather", axis=0),
        helper.make_node("DequantizeLinear", ["rows", "scale", "zero"], ["result"], name="dequantize"),
    ]
    constants = {"table": np.ones((100, 16), np.int8), "scale": np.float32(0.1), "zero": np.int8(0)}
    return model(nodes, [("ids", TensorProto.INT64, [1, 4])], [("result", TensorProto.FLOAT, [1, 4, 16])], constants)


def foreign_op():
    """An op that no TensorRT knows."""
    nodes = [
        helper.make_node("Relu", ["x"], ["y"], name="relu"),
        helper.make_node("Polish", ["y"], ["z"], name="odd", domain="acme"),
    ]
    result = model(nodes, [("x", TensorProto.FLOAT, [1, 4])], [("z", TensorProto.FLOAT, [1, 4])], {})
    result.opset_import.append(helper.make_opsetid("acme", 1))
    return result


def two_layers(width=512, batch=1, names=("features", "hidden", "scores")) -> onnx.ModelProto:
    """A float network whose weights dwarf its kernels, so that INT8 makes the engine smaller."""
    rng = np.random.default_rng(1)
    first, hidden, last = names
    nodes = [
        helper.make_node("Gemm", [first, "w1", "b1"], ["product"], name="dense1", transB=1),
        helper.make_node("Relu", ["product"], [hidden], name="relu1"),
        helper.make_node("Gemm", [hidden, "w2", "b2"], [last], name="dense2", transB=1),
    ]
    constants = {
        "w1": (rng.standard_normal((4 * width, width)) / np.sqrt(width)).astype(np.float32),
        "b1": np.zeros(4 * width, np.float32),
        "w2": (rng.standard_normal((width, 4 * width)) / np.sqrt(4 * width)).astype(np.float32),
        "b2": np.zeros(width, np.float32),
    }
    size = TensorProto.FLOAT
    return model(nodes, [(first, size, [batch, width])], [(last, size, [batch, width])], constants)


def depthwise_block() -> onnx.ModelProto:
    """Two dense convolutions around a depthwise one, and a transposed one at the end."""
    rng = np.random.default_rng(2)
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], name="expand"),
        helper.make_node("Relu", ["a"], ["b"], name="relu1"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="depthwise", group=64, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["d"], name="relu2"),
        helper.make_node("Conv", ["d", "w3"], ["e"], name="project"),
        helper.make_node("ConvTranspose", ["e", "w4"], ["result"], name="up", strides=[2, 2]),
    ]
    constants = {
        "w1": rng.standard_normal((64, 16, 1, 1)).astype(np.float32) / 4,
        "w2": rng.standard_normal((64, 1, 3, 3)).astype(np.float32) / 3,
        "w3": rng.standard_normal((16, 64, 1, 1)).astype(np.float32) / 8,
        "w4": rng.standard_normal((16, 8, 2, 2)).astype(np.float32) / 4,
    }
    size = TensorProto.FLOAT
    return model(nodes, [("image", size, [1, 16, 16, 16])], [("result", size, [1, 8, 32, 32])], constants)
