import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tensorrt_graphs as graphs
import zoo
from onnx import TensorProto, helper

from edgedeploy.errors import InputError
from edgedeploy.exporters.tensorrt.opset import to_opset


@pytest.mark.parametrize("opset", [13, 17])
def test_a_trained_model_computes_the_same_in_an_older_opset(digits_graph, opset):
    image = zoo.digits_data()[2][:1]
    older = to_opset(digits_graph.model, opset, "jetson-nano")
    assert older.opset_import[0].version == opset
    outputs = [
        ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"image": image})[
            0
        ]
        for model in (digits_graph.model, older)
    ]
    assert outputs[0] == pytest.approx(outputs[1], abs=1e-5)


def test_layer_normalization_is_written_out_where_it_is_unknown():
    node = helper.make_node("LayerNormalization", ["x", "gain", "shift"], ["y"], name="norm", axis=-1)
    ports = [("x", TensorProto.FLOAT, [2, 8])], [("y", TensorProto.FLOAT, [2, 8])]
    constants = {"gain": np.linspace(1, 2, 8, dtype=np.float32), "shift": np.ones(8, np.float32)}
    graph = graphs.model([node], *ports, constants)
    older = to_opset(graph, 13, "jetson-nano")
    assert "LayerNormalization" not in {item.op_type for item in older.graph.node}
    x = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    one, two = (ort.InferenceSession(item.SerializeToString()).run(None, {"x": x})[0] for item in (graph, older))
    assert one == pytest.approx(two, abs=1e-5)


def test_what_an_older_opset_cannot_say_is_named():
    node = helper.make_node("GridSample", ["x", "grid"], ["y"], name="warp")
    ports = (
        [("x", TensorProto.FLOAT, [1, 1, 4, 4]), ("grid", TensorProto.FLOAT, [1, 4, 4, 2])],
        [("y", TensorProto.FLOAT, [1, 1, 4, 4])],
    )
    with pytest.raises(InputError, match="opset 13") as caught:
        to_opset(graphs.model([node], *ports, {}), 13, "jetson-nano")
    assert "GridSample 'warp'" in str(caught.value) and "jetson-nano" in str(caught.value)


def test_a_feature_that_is_newer_than_the_op_is_named():
    node = helper.make_node("Reshape", ["x", "shape"], ["y"], name="view", allowzero=1)
    ports = [("x", TensorProto.FLOAT, [0, 4])], [("y", TensorProto.FLOAT, [0, 4])]
    graph = graphs.model([node], *ports, {"shape": np.array([0, 4])})
    onnx.checker.check_model(graph)
    with pytest.raises(InputError, match="opset 13") as caught:
        to_opset(graph, 13, "jetson-nano")
    assert "'allowzero'" in str(caught.value)
