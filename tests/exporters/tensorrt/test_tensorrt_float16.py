import numpy as np
import onnx
import pytest
import tensorrt_graphs as graphs
import zoo
from onnx import TensorProto, helper

from edgedeploy.exporters.tensorrt.float16 import to_float16
from edgedeploy.exporters.tensorrt.gate import check
from edgedeploy.targets.tensorrt.emulate import open_exact


def run(model, **feeds):
    return open_exact(model.SerializeToString()).run(None, feeds)[0]


def types(model):
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def test_a_trained_model_keeps_its_outputs(digits_graph):
    images = zoo.digits_data()[2][:1]
    half = to_float16(digits_graph.model)
    onnx.checker.check_model(half, full_check=True)
    one, two = run(digits_graph.model, image=images), run(half, image=images)
    assert two.dtype == np.float32
    assert np.abs(one - two).max() < 0.01 * np.abs(one).max()
    assert TensorProto.FLOAT not in types(half).values()


def test_scales_take_the_type_of_their_data_and_integers_stay():
    half = to_float16(graphs.quantized_conv())
    found = types(half)
    assert found["w"] == TensorProto.INT8
    assert found["scale_float16"] == found["w_scale_float16"] == TensorProto.FLOAT16
    assert check(half).int8_share == 1.0


def test_a_subnormal_scale_stays_float32_between_casts():
    graph = graphs.quantized_conv(scale=1e-6)
    half = to_float16(graph)
    assert types(half)["scale"] == TensorProto.FLOAT
    image = np.full((1, 32, 16, 16), 1e-4, np.float32)
    one, two = run(graph, image=image), run(half, image=image)
    assert np.abs(one - two).max() <= 0.01 * np.abs(one).max()


def test_constants_beyond_float16_are_clamped():
    nodes = [
        helper.make_node("Add", ["x", "mask"], ["y"], name="add"),
        helper.make_node("Softmax", ["y"], ["z"], name="s"),
    ]
    ports = [("x", TensorProto.FLOAT, [1, 3])], [("z", TensorProto.FLOAT, [1, 3])]
    graph = graphs.model(nodes, *ports, {"mask": np.array([[0, -3.4e38, 0]], np.float32)})
    assert run(to_float16(graph), x=np.zeros((1, 3), np.float32)) == pytest.approx(np.array([[0.5, 0, 0.5]]))


def test_resize_scales_stay_float32():
    nodes = [helper.make_node("Resize", ["x", "", "scales"], ["y"], name="up", mode="nearest")]
    ports = [("x", TensorProto.FLOAT, [1, 1, 2, 2])], [("y", TensorProto.FLOAT, [1, 1, 4, 4])]
    graph = graphs.model(nodes, *ports, {"scales": np.array([1, 1, 2, 2], np.float32)})
    half = to_float16(graph)
    assert types(half)["scales"] == TensorProto.FLOAT
    assert run(half, x=np.ones((1, 1, 2, 2), np.float32)).shape == (1, 1, 4, 4)
    assert check(half).accepted


def test_named_nodes_go_on_in_float32():
    graph = graphs.two_layers(width=32)
    half = to_float16(graph, keep=["dense2"])
    assert types(half)["w2"] == TensorProto.FLOAT and types(half)["w1_float16"] == TensorProto.FLOAT16
    features = np.ones((1, 32), np.float32)
    assert run(half, features=features) == pytest.approx(run(graph, features=features), abs=0.02)


def test_an_output_that_is_also_read_inside_keeps_its_name():
    nodes = [helper.make_node("Relu", ["x"], ["y"], name="a"), helper.make_node("Neg", ["y"], ["z"], name="b")]
    one = TensorProto.FLOAT
    graph = graphs.model(nodes, [("x", one, [2])], [("y", one, [2]), ("z", one, [2])], {})
    session = open_exact(to_float16(graph).SerializeToString())
    first, second = session.run(["y", "z"], {"x": np.array([1, -1], np.float32)})
    assert first.tolist() == [1, 0] and second.tolist() == [-1, 0]
    assert first.dtype == second.dtype == np.float32


def test_an_input_that_is_also_an_output_stays():
    one = TensorProto.FLOAT
    graph = graphs.model([helper.make_node("Relu", ["x"], ["y"], name="a")], [("x", one, [2])], [("y", one, [2])], {})
    graph.graph.output.append(helper.make_tensor_value_info("x", one, [2]))
    session = open_exact(to_float16(graph).SerializeToString())
    assert session.run(["x"], {"x": np.array([1, -1], np.float32)})[0].tolist() == [1, -1]
