"""``.onnx`` sources of any opset become the same canonical graph; what is no float ONNX model is refused."""

from __future__ import annotations

import doctored
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from edgedeploy.errors import InputError
from edgedeploy.graph.graph import OPSET, graph_from_onnx

rng = np.random.default_rng(0)


def convolution(opset: int, batch="N", ir_version: int = 8, weights_as_inputs: bool = False) -> onnx.ModelProto:
    """Conv, batch norm, ReLU, a Dropout, an Unsqueeze whose form changed at opset 13, and a dead constant."""
    weights = {
        "w": rng.standard_normal((4, 1, 3, 3)),
        "gamma": rng.uniform(0.5, 2, 4),
        "beta": rng.standard_normal(4),
        "mean": rng.standard_normal(4),
        "variance": rng.uniform(0.5, 2, 4),
        "dead": np.ones(9),
    }
    initializers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    if opset >= 13:
        initializers.append(numpy_helper.from_array(np.array([1]), "axes"))
        unsqueeze = helper.make_node("Unsqueeze", ["d", "axes"], ["y"])
    else:
        unsqueeze = helper.make_node("Unsqueeze", ["d"], ["y"], axes=[1])
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "variance"], ["n"]),
            helper.make_node("Relu", ["n"], ["r"]),
            helper.make_node("Dropout", ["r"], ["d"]),
            unsqueeze,
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (batch, 1, 8, 8))]
        + [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in initializers if weights_as_inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (batch, 1, 4, 6, 6))],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def run(model: onnx.ModelProto, x):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 20, 21, 22, 23])
def test_any_opset(opset):
    model = convolution(opset, ir_version=10 if opset > 20 else 8)
    before = model.SerializeToString()
    graph = graph_from_onnx(model)
    assert model.SerializeToString() == before, "the caller's model is not changed"
    assert [(entry.domain, entry.version) for entry in graph.model.opset_import] == [("", OPSET)]
    onnx.checker.check_model(graph.model, full_check=True)
    assert [node.op_type for node in graph.model.graph.node] == ["Conv", "Relu", "Unsqueeze"]
    assert all(node.name for node in graph.model.graph.node)
    assert list(graph.batch_norms) == ["n"]
    assert "dead" not in {tensor.name for tensor in graph.model.graph.initializer}
    x = rng.standard_normal((1, 1, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(run(graph.model, x)[0], run(model, x)[0], rtol=1e-4, atol=1e-5)
    assert [str(spec) for spec in (*graph.inputs, *graph.outputs)] == ["x:1x1x8x8:float32", "y:1x1x4x6x6:float32"]


def test_dynamic_batch_is_kept_and_named():
    graph = graph_from_onnx(convolution(17), dynamic_batch=True)
    assert [spec.shape[0] for spec in (*graph.inputs, *graph.outputs)] == ["batch", "batch"]
    assert run(graph.model, np.ones((5, 1, 8, 8), np.float32))[0].shape == (5, 1, 4, 6, 6)


def test_a_fixed_batch_stays_fixed():
    graph = graph_from_onnx(convolution(17, batch=4), dynamic_batch=True)
    assert graph.inputs[0].shape == (4, 1, 8, 8)


def test_weights_listed_as_inputs_are_weights():
    graph = graph_from_onnx(convolution(9, ir_version=3, weights_as_inputs=True))
    assert [spec.name for spec in graph.inputs] == ["x"]


def test_same_bytes_each_time():
    model = convolution(13)
    assert graph_from_onnx(model).sha256 == graph_from_onnx(model).sha256


def test_quantized_already(tmp_path):
    torch.onnx.export(
        doctored.small_net(), (torch.ones(1, 1, 8, 8),), tmp_path / "m.onnx", verbose=False, external_data=False
    )
    quantize_dynamic(tmp_path / "m.onnx", tmp_path / "q.onnx", weight_type=QuantType.QUInt8)
    with pytest.raises(InputError, match="quantized already") as caught:
        graph_from_onnx(onnx.load(tmp_path / "q.onnx"))
    assert "ConvInteger" in caught.value.found
    assert "float32" in caught.value.remedy


def test_half_precision():
    model = convolution(17)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    with pytest.raises(InputError, match="half precision"):
        graph_from_onnx(model)


def test_operators_outside_the_standard():
    model = convolution(17)
    model.graph.node[2].domain, model.graph.node[2].op_type = "com.example", "FancyRelu"
    model.opset_import.add(domain="com.example", version=1)
    with pytest.raises(InputError, match="outside the ONNX standard") as caught:
        graph_from_onnx(model)
    assert "com.example.FancyRelu" in caught.value.found
