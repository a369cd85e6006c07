"""The graph rewrites change speed and size, never what is computed."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.exporters.onnxruntime.embedding import quantize_embeddings
from edgedeploy.exporters.onnxruntime.linear import gemm_to_matmul
from edgedeploy.exporters.onnxruntime.normalization import vectorize_layer_norms
from edgedeploy.exporters.onnxruntime.stem import pad_stem_channels
from edgedeploy.tensors import TensorSpec

RANDOM = np.random.default_rng(7)


def _model(nodes, constants, shape, dtype=TensorProto.FLOAT):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _run(model, x):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})[0]


def _random(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_a_gemm_becomes_a_matmul_with_the_same_answer(transposed, bias):
    weight = _random(7, 5).T.copy() if transposed else _random(7, 5)
    inputs = ["x", "w", "b"] if bias else ["x", "w"]
    model = _model(
        [helper.make_node("Gemm", inputs, ["y"], name="last", transB=transposed)],
        {"w": weight, "b": _random(5)},
        [3, 7],
    )
    rewritten = gemm_to_matmul(model)
    assert [node.op_type for node in rewritten.graph.node] == ["MatMul", "Add"][: 1 + bias]
    assert [node.op_type for node in model.graph.node] == ["Gemm"]
    x = _random(3, 7)
    np.testing.assert_allclose(_run(rewritten, x), _run(model, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attributes", [{"alpha": 0.5}, {"beta": 2.0}, {"transA": 1}])
def test_a_gemm_that_is_no_linear_layer_stays(attributes):
    model = _model(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="g", **attributes)],
        {"w": _random(4, 4), "b": _random(4)},
        [4, 4],
    )
    assert [node.op_type for node in gemm_to_matmul(model).graph.node] == ["Gemm"]


@pytest.mark.parametrize("bias", [True, False])
def test_a_vectorized_layer_norm_gives_the_same_answer(bias):
    constants = {"gamma": _random(48), "beta": _random(48)}
    inputs = ["x", "gamma", "beta"] if bias else ["x", "gamma"]
    model = _model(
        [helper.make_node("LayerNormalization", inputs, ["y"], name="n", axis=-1, epsilon=1e-12)],
        constants,
        ["batch", 6, 48],
    )
    x = _random(3, 6, 48) * 10 + 4
    want = _run(model, x)
    assert vectorize_layer_norms(model, {"x": TensorSpec("x", ("batch", 6, 48), "float32")}) == 1
    np.testing.assert_allclose(_run(model, x), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [("batch", "tokens", 48), (1, 48), (1, 2, 6, 48)])
def test_layer_norms_over_other_shapes_stay(shape):
    model = _model(
        [helper.make_node("LayerNormalization", ["x", "gamma"], ["y"], name="n")], {"gamma": _random(48)}, list(shape)
    )
    assert vectorize_layer_norms(model, {"x": TensorSpec("x", shape, "float32")}) == 0
    assert [node.op_type for node in model.graph.node] == ["LayerNormalization"]


def test_embedding_rows_keep_a_third_of_a_percent():
    table = _random(300, 32) * np.linspace(0.001, 100, 300, dtype=np.float32)[:, None]
    table[7] = 0
    model = _model([helper.make_node("Gather", ["t", "x"], ["y"], name="g", axis=0)], {"t": table}, [1, 300], 7)
    assert quantize_embeddings(model) == 1
    got = _run(model, np.arange(300)[None])[0]
    largest = np.abs(table).max(axis=1, keepdims=True)
    assert (np.abs(got - table) <= largest * 0.00394 + 1e-12).all()
    stored = sum(numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer)
    assert stored == 300 * 32 + 300 * 4


def test_a_small_table_and_another_axis_stay():
    for axis, rows in ((0, 16), (1, 300)):
        node = helper.make_node("Gather", ["t", "x"], ["y"], name="g", axis=axis)
        model = _model([node], {"t": _random(rows, 32)}, [1, 3], TensorProto.INT64)
        assert quantize_embeddings(model) == 0


@pytest.mark.parametrize("channels", [3, 8])
def test_padding_an_image_stem_changes_no_output_bit(channels):
    constants = {
        "s": np.float32(0.02),
        "z": np.uint8(117),
        "so": np.float32(0.1),
        "w": RANDOM.integers(-127, 128, (8, channels, 3, 3)).astype(np.int8),
        "sw": np.full(8, 0.003, np.float32),
        "zw": np.zeros(8, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], name="q"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], name="d"),
        helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["wd"], name="dw", axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["c"], name="conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("QuantizeLinear", ["c", "so", "z"], ["cq"], name="q2"),
        helper.make_node("DequantizeLinear", ["cq", "so", "z"], ["y"], name="d2"),
    ]
    model = _model(nodes, constants, [1, channels, 16, 16])
    x = _random(1, channels, 16, 16)
    want = _run(model, x)
    assert pad_stem_channels(model) == (channels == 3)
    np.testing.assert_array_equal(_run(model, x), want)
