import numpy as np
import pytest
import tensorrt_graphs as graphs
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.exporters.tensorrt.lint import lint


@pytest.mark.parametrize(
    ("graph", "node", "words"),
    [
        (graphs.quantized_conv(zero_point=3), "quantize", "zero point is not 0"),
        (graphs.quantized_conv(dtype=np.uint8), "quantize", "not signed 8-bit"),
        (graphs.quantized_conv(dtype=np.int16), "quantize", "not signed 8-bit"),
        (graphs.quantized_conv(weight_type=np.uint8), "weights", "not signed 8-bit"),
        (graphs.quantized_conv(scale=0.0), "quantize", "zero, negative or not finite"),
        (graphs.quantized_conv(scale=np.nan), "quantize", "zero, negative or not finite"),
        (graphs.runtime_scale(), "quantize", "computed at run time"),
        (graphs.gather_then_dequantize(), "dequantize", "fails to build"),
    ],
)
def test_names_the_node_and_the_reason(graph, node, words):
    first = lint(graph)[0]
    assert (first.node, words in first.reason) == (node, True)


def test_accepts_what_tensorrt_takes():
    assert lint(graphs.quantized_conv()) == ()
    assert lint(graphs.two_layers()) == ()


def _shifted(value):
    nodes = [helper.make_node("Add", ["x", "offset"], ["y"], name="shift")]
    ports = [("x", TensorProto.INT64, [1])], [("y", TensorProto.INT64, [1])]
    return graphs.model(nodes, *ports, {"offset": np.array([value], np.int64)})


def test_int64_constants_beyond_int32_are_named():
    found = lint(_shifted(2**40))
    assert found[0].node == "shift" and "'offset'" in found[0].reason


@pytest.mark.parametrize("value", [2**31 - 1, -(2**31), np.iinfo(np.int64).max])
def test_int64_constants_that_fit_or_mean_the_end_pass(value):
    assert lint(_shifted(value)) == ()


def test_an_int32_bias_behind_dequantize_is_refused():
    graph = graphs.quantized_conv()
    graph.graph.initializer.append(numpy_helper.from_array(np.zeros(32, np.int32), "bias"))
    graph.graph.node.append(helper.make_node("DequantizeLinear", ["bias", "w_scale"], ["bias_dq"], name="bias"))
    assert [item.node for item in lint(graph)] == ["bias"]


@pytest.mark.parametrize("op_type", ["QLinearConv", "MatMulInteger", "DynamicQuantizeLinear"])
def test_integer_ops_are_refused(op_type):
    node = helper.make_node(op_type, ["x"], ["y"], name="integer")
    graph = graphs.model([node], [("x", TensorProto.FLOAT, [1])], [("y", TensorProto.FLOAT, [1])], {})
    assert "integer ops are not imported" in lint(graph)[0].reason.lower()
