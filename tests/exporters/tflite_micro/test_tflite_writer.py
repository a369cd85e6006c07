"""The file as a whole: bytes, alignment, layouts, what is refused before any work."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tflite_cases import Case, all_cases, conv, node, unary
from tflite_graphs import FloatGraph, quantized
from tflite_oracles import real_output, run_litert, run_micro, sqnr_db

from edgedeploy.errors import InputError, UnsupportedOpError
from edgedeploy.exporters.tflite_micro.lowering import WriterOptions
from edgedeploy.exporters.tflite_micro.writer import write_tflite


def random(*shape):
    rng = np.random.default_rng(3)
    return (rng.standard_normal(shape) / np.sqrt(max(np.prod(shape[1:]), 1))).astype(np.float32)


def residual_net() -> FloatGraph:
    """Conv, depthwise, squeeze-and-excite, residual, concat, pools, flatten: everything that moves layouts."""
    nodes = [
        node("Conv", ["x", "w1"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w2"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=8),
        node("GlobalAveragePool", ["c"], ["g"]),
        node("Conv", ["g", "w3"], ["e"], kernel_shape=[1, 1]),
        node("Sigmoid", ["e"], ["s"]),
        node("Mul", ["c", "s"], ["m"]),
        node("Add", ["m", "b"], ["r"]),
        node("Concat", ["r", "b"], ["k"], axis=1),
        node("MaxPool", ["k"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w4"], ["y"], transB=1),
    ]
    weights = {"w1": random(8, 3, 3, 3), "w2": random(8, 1, 3, 3), "w3": random(8, 8, 1, 1), "w4": random(10, 256)}
    return FloatGraph(nodes, (1, 3, 16, 16), ["y"], weights)


SAMPLES = np.random.default_rng(5).standard_normal((6, 1, 3, 16, 16)).astype(np.float32)


def test_writing_twice_gives_the_same_bytes():
    model = quantized(residual_net(), SAMPLES)
    assert write_tflite(model).content == write_tflite(model).content


def test_no_transpose_is_left_in_a_convolutional_net():
    written = write_tflite(quantized(residual_net(), SAMPLES))
    assert "TRANSPOSE" not in written.model.builtins
    assert written.inputs[0].layout == (0, 2, 3, 1)
    reference = residual_net().run(SAMPLES)[0]
    got = np.stack([real_output(written, written.outputs[0], run[0]) for run in run_micro(written, SAMPLES)])
    assert sqnr_db(reference, got) > 25


def test_constant_buffers_are_aligned_to_16_bytes():
    written = write_tflite(quantized(residual_net(), SAMPLES))
    model = schema.Model.GetRootAsModel(written.content, 0)
    checked = 0
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer.DataLength():
            data = buffer.DataAsNumpy()
            start = data.__array_interface__["data"][0] - np.frombuffer(written.content, np.uint8).ctypes.data
            assert start % 16 == 0
            checked += 1
    assert checked > 8


def test_equal_constants_are_stored_once():
    graph = FloatGraph(
        [node("Gemm", ["x", "w"], ["a"]), node("Gemm", ["a", "w"], ["y"])], (1, 64), ["y"], {"w": random(64, 64)}
    )
    written = write_tflite(quantized(graph, np.random.default_rng(1).standard_normal((4, 1, 64)).astype(np.float32)))
    assert len(written.content) < 2 * 64 * 64


def test_fully_connected_weights_per_tensor_on_request():
    model = quantized(residual_net(), SAMPLES)
    written = write_tflite(model, WriterOptions(per_channel_fc=False))
    dense = next(operator for operator in written.model.operators if operator.builtin == "FULLY_CONNECTED")
    assert not written.model.tensors[dense.inputs[1]].quantization.per_channel
    litert, micro = run_litert(written, SAMPLES), run_micro(written, SAMPLES)
    assert max(np.abs(a[0].astype(int) - b[0].astype(int)).max() for a, b in zip(litert, micro, strict=True)) <= 2


def test_activations_are_fused():
    graph = conv((1, 3, 8, 8), 5, (3, 3))
    graph.nodes[0].output[0] = "c"
    graph.nodes.append(node("Relu", ["c"], ["y"]))
    written = write_tflite(
        quantized(graph, np.random.default_rng(2).standard_normal((3, 1, 3, 8, 8)).astype(np.float32))
    )
    assert written.model.operators[0].options["fusedActivationFunction"] == schema.ActivationFunctionType.RELU


def test_a_second_quantization_becomes_a_quantize():
    graph = unary("Sigmoid", (1, 6))
    model = quantized(graph, np.linspace(-3, 3, 24, dtype=np.float32).reshape(4, 1, 6))
    for tensor in model.graph.initializer:
        if tensor.name == "y_scale":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.float32(1 / 200), "y_scale"))
    written = write_tflite(model)
    assert [operator.builtin for operator in written.model.operators] == ["LOGISTIC", "QUANTIZE"]


def test_unsupported_ops_are_all_named_before_any_work():
    graph = FloatGraph(
        [
            helper.make_node("Det", ["x"], ["d"], name="stage1/det"),
            helper.make_node("Sinh", ["x"], ["y"], name="stage2/sinh"),
        ],
        (1, 3, 3), ["d", "y"], {},
    )  # fmt: skip
    with pytest.raises(UnsupportedOpError) as raised:
        write_tflite(graph.model())
    text = str(raised.value)
    for expected in ("Det", "stage1/det", "Sinh", "stage2/sinh", "Conv", "Softmax", "LayerNormalization"):
        assert expected in text


@pytest.mark.parametrize(
    ("name", "graph", "words"),
    [
        ("dilated pool", unary("MaxPool", (1, 2, 9, 9), kernel_shape=[3, 3], dilations=[2, 2]), "dilated pools"),
        ("conv 3d", conv((1, 2, 5, 5, 5), 3, (3, 3, 3)), "axes"),
        ("div", FloatGraph([node("Abs", ["x"], ["r"]), node("Div", ["x", "r"], ["y"])], (1, 4), ["y"], {}), "divide"),
        ("layer norm axis", FloatGraph([node("LayerNormalization", ["x", "s"], ["y"], axis=1)], (1, 3, 4), ["y"],
            {"s": np.ones((3, 4), np.float32)}), "last axis"),
        ("cubic", FloatGraph([node("Resize", ["x", "", "s"], ["y"], mode="cubic")], (1, 2, 4, 4), ["y"],
            {"s": np.float32([1, 1, 2, 2])}), "cubic"),
        ("tile", FloatGraph([node("Tile", ["x", "n"], ["y"])], (1, 3), ["y"], {"n": np.array([1, 11])}), "join 10"),
    ],
)  # fmt: skip
def test_what_no_kernel_does_is_refused_with_the_reason(name, graph, words):
    with pytest.raises(UnsupportedOpError, match=words):
        write_tflite(graph.model())


def test_a_tensor_left_float_is_refused():
    with pytest.raises(InputError, match="not int8"):
        write_tflite(conv((1, 3, 8, 8), 5, (3, 3)).model())


def test_tensors_of_six_axes_are_refused():
    graph = FloatGraph(
        [node("Reshape", ["x", "s"], ["r"]), node("Transpose", ["r"], ["y"], perm=[0, 2, 1, 4, 3, 5])],
        (1, 4, 4, 4), ["y"], {"s": np.asarray([1, 2, 2, 2, 2, 4])},
    )  # fmt: skip
    with pytest.raises(UnsupportedOpError, match="6 axes"):
        write_tflite(graph.model())


def test_a_dynamic_batch_is_refused():
    model = unary("Relu", (1, 4)).model()
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    with pytest.raises(InputError, match="no static shape") as raised:
        write_tflite(model)
    assert "batch 1" in raised.value.remedy


def test_int64_inputs_are_refused_with_the_way_out():
    graph = FloatGraph([node("Gather", ["w", "x"], ["y"])], (1, 5), ["y"], {"w": random(20, 4)}, "int64")
    with pytest.raises(InputError, match="int64") as raised:
        write_tflite(quantized(graph, np.zeros((2, 1, 5), np.int64)))
    assert "int32" in raised.value.remedy


def test_an_embedding_of_int32_ids():
    graph = FloatGraph([node("Gather", ["w", "x"], ["y"])], (1, 5), ["y"], {"w": random(20, 4)}, "int32")
    ids = np.random.default_rng(0).integers(0, 20, (4, 1, 5)).astype(np.int32)
    written = write_tflite(quantized(graph, ids))
    assert [operator.builtin for operator in written.model.operators] == ["GATHER"]
    reference = graph.run(ids)[0]
    for run in (run_micro, run_litert):
        got = np.stack([real_output(written, written.outputs[0], codes[0]) for codes in run(written, ids)])
        assert sqnr_db(reference, got) > 35


def test_weights_with_a_zero_point_are_refused():
    model = quantized(conv((1, 3, 8, 8), 5, (3, 3)), np.ones((2, 1, 3, 8, 8), np.float32))
    for tensor in model.graph.initializer:
        if tensor.name == "w_zero_point":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ones(5, np.int8), "w_zero_point"))
    with pytest.raises(InputError, match="zero point that is not 0"):
        write_tflite(model)


def test_a_model_without_operations_is_refused():
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])])  # fmt: skip
    with pytest.raises(InputError, match="no operation"):
        write_tflite(helper.make_model(graph))


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(3, 11), width=st.integers(3, 11), channels=st.integers(1, 9), out=st.integers(1, 9),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)), strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*(st.integers(0, 2) for _ in range(4))), depthwise=st.booleans(),
)  # fmt: skip
def test_convolutions_of_any_shape(height, width, channels, out, kernel, strides, pads, depthwise):
    pads = tuple(min(pad, kernel[index % 2] - 1) for index, pad in enumerate(pads))
    group = channels if depthwise else 1
    graph = conv((1, channels, height, width), channels * 2 if depthwise else out, kernel, group=group,
        strides=list(strides), pads=list(pads))  # fmt: skip
    samples = np.random.default_rng(0).uniform(-1, 1, (2, 1, channels, height, width)).astype(np.float32)
    written = write_tflite(quantized(graph, samples))
    litert, micro = run_litert(written, samples), run_micro(written, samples)
    for ours, theirs in zip(micro, litert, strict=True):
        assert np.array_equal(ours[0], theirs[0])
    got = np.stack([real_output(written, written.outputs[0], run[0]) for run in micro])
    step = written.model.tensors[written.outputs[0].tensor].quantization.scale[0]
    assert np.abs(got - graph.run(samples)[0]).max() <= 4 * step


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_reshapes_and_transposes_of_any_shape(data):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    total = int(np.prod(shape))
    first = data.draw(st.sampled_from([size for size in range(1, total + 1) if total % size == 0]))
    before, after = data.draw(st.permutations(range(len(shape)))), data.draw(st.permutations(range(2)))
    graph = FloatGraph(
        [
            node("Relu", ["x"], ["a"]),
            node("Transpose", ["a"], ["b"], perm=list(before)),
            node("Reshape", ["b", "s"], ["c"]),
            node("Transpose", ["c"], ["d"], perm=list(after)),
            node("Abs", ["d"], ["y"]),
        ],
        tuple(shape), ["y"], {"s": np.asarray([first, total // first])},
    )  # fmt: skip
    samples = np.random.default_rng(0).uniform(-1, 1, (2, *shape)).astype(np.float32)
    written = write_tflite(quantized(graph, samples))
    got = np.stack([real_output(written, written.outputs[0], run[0]) for run in run_micro(written, samples)])
    assert np.abs(got - graph.run(samples)[0]).max() < 0.02


@pytest.mark.parametrize(
    "name", ["activation-gelu", "activation-prelu", "movement-resize_linear", "pooling-reduce_max"]
)
def test_int16_goes_through_int8_where_there_is_no_wide_kernel(name):
    case: Case = next(case for case in all_cases() if case.name == name)
    samples = case.samples()
    written = write_tflite(quantized(case.graph, samples, wide=True))
    assert [written.model.operators[0].builtin, written.model.operators[-1].builtin] == ["QUANTIZE", "QUANTIZE"]
    got = np.stack([real_output(written, written.outputs[0], run[0]) for run in run_micro(written, samples)])
    assert sqnr_db(case.graph.run(samples)[0], got) > 25


def test_what_lies_between_two_repeats_has_the_shape_it_is_written_with():
    graph = FloatGraph([node("Tile", ["x", "n"], ["y"])], (1, 3, 4), ["y"], {"n": np.array([1, 2, 3])})
    written = write_tflite(quantized(graph, np.zeros((2, 1, 3, 4), np.float32)))
    shapes = [written.model.tensors[operator.outputs[0]].shape for operator in written.model.operators]
    assert shapes == [(1, 6, 4), (1, 6, 12)]
