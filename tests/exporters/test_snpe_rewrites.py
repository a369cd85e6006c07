"""Each rewrite computes what the original computed, and what remains is what QNN takes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from snpe_nets import graph_of, images, weights

from edgedeploy.calibration.schemes import QNN_A8W8
from edgedeploy.exporters.snpe.per_tensor import tolerant_weights
from edgedeploy.exporters.snpe.prepare import as_fed
from edgedeploy.exporters.snpe.rewrites.apply import for_hexagon


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options).run(None, feeds)


def check(nodes, shape, constants=None, *, gone=(), outputs=("y",), tolerance=2e-6, **extra_inputs):
    """Rewrite and compare in FP32; returns the op types left."""
    graph = graph_of(
        nodes, {"x": shape, **{k: list(v.shape) for k, v in extra_inputs.items()}}, outputs, constants or {}
    )
    feeds = {"x": images(1, *shape)[0], **extra_inputs}
    rewritten = for_hexagon(graph.model)
    for before, after in zip(run(graph.model, feeds), run(rewritten.model, feeds), strict=True):
        assert before.shape == after.shape
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=tolerance)
    left = [node.op_type for node in rewritten.model.graph.node]
    assert not set(gone) & set(left)
    assert rewritten.applied
    return left


def test_activations_that_qnn_refuses():
    check([helper.make_node("Celu", ["x"], ["y"], alpha=0.7)], [1, 4, 5, 5], gone=["Celu"])
    check([helper.make_node("Selu", ["x"], ["y"])], [1, 4, 5, 5], gone=["Selu"])
    check([helper.make_node("Softsign", ["x"], ["y"])], [1, 4, 5, 5], gone=["Softsign"])
    slopes = {"a": np.array([0.1, 0.2, 0.3, 0.4], np.float32).reshape(4, 1, 1)}
    check([helper.make_node("PRelu", ["x", "a"], ["y"])], [1, 4, 5, 5], slopes, gone=["PRelu"])
    check([helper.make_node("Mish", ["x"], ["y"])], [1, 4, 5, 5], gone=["Mish"])
    above_zero = [helper.make_node("Exp", ["x"], ["e"]), helper.make_node("Reciprocal", ["e"], ["y"])]
    check(above_zero, [1, 4, 5, 5], gone=["Reciprocal"])


@pytest.mark.parametrize(("low", "high", "bound"), [(0.1, 0.9, "Max"), (-0.9, -0.1, "Min"), (0.3, None, "Max")])
def test_a_clip_whose_bounds_do_not_hold_zero_gets_bounds_that_do(low, high, bound):
    constants = {"low": np.float32(low)} | ({} if high is None else {"high": np.float32(high)})
    left = check([helper.make_node("Clip", ["x", *constants], ["y"])], [1, 4, 5, 5], constants)
    assert left == ["Clip", bound]


@pytest.mark.parametrize("group", [2, 4])
def test_a_grouped_transposed_convolution_gets_one_group(group):
    constants = {"w": weights(4, 8 // group, 3, 3), "b": weights(8, seed=3)}
    node = helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], group=group, strides=[2, 2], pads=[1] * 4)
    check([node], [1, 4, 5, 5], constants)
    other = helper.make_node("ConvTranspose", ["x", "v"], ["y"], strides=[2, 2])
    left = for_hexagon(graph_of([other], {"x": [1, 4, 5, 5]}, ["y"], {"v": weights(4, 2, 2, 2)}).model)
    assert not left.applied


@pytest.mark.parametrize("floor", [1e-12, 0.5])
def test_a_normalized_vector_is_one_op_unless_its_floor_matters(floor):
    nodes = [
        helper.make_node("ReduceL2", ["x", "axes"], ["n"], keepdims=1),
        helper.make_node("Clip", ["n", "floor"], ["m"]),
        helper.make_node("Expand", ["m", "shape"], ["e"]),
        helper.make_node("Div", ["x", "e"], ["y"]),
    ]
    constants = {"axes": np.array([1]), "floor": np.float32(floor), "shape": np.array([1, 4, 5, 5])}
    left = check(nodes, [1, 4, 5, 5], constants, gone=["ReduceL2", "Expand"])
    assert left == (["LpNormalization"] if floor < 0.1 else ["Mul", "ReduceSum", "Sqrt", "Clip", "Max", "Tile", "Div"])


@pytest.mark.parametrize(("shape", "wanted"), [((1, 4, 1, 1), (1, 4, 3, 5)), ((4, 1), (2, 4, 3))])
def test_expand_becomes_tile(shape, wanted):
    nodes = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Expand", ["s", "shape"], ["y"])]
    check(nodes, list(shape), {"shape": np.array(wanted)}, gone=["Expand"])


@pytest.mark.parametrize("half_first", [True, False])
@pytest.mark.parametrize("divide", [True, False])
def test_the_erf_form_of_gelu(half_first, divide):
    constants = {
        "half": np.float32(0.5), "one": np.float32(1), "root": np.float32(2**0.5 if divide else 0.5**0.5)
    }  # fmt: skip
    nodes = [
        helper.make_node("Div" if divide else "Mul", ["x", "root"], ["d"]),
        helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["s"]),
    ]
    if half_first:
        nodes += [helper.make_node("Mul", ["x", "half"], ["h"]), helper.make_node("Mul", ["h", "s"], ["y"])]
    else:
        nodes += [helper.make_node("Mul", ["x", "s"], ["p"]), helper.make_node("Mul", ["p", "half"], ["y"])]
    assert check(nodes, [1, 7, 8], constants, gone=["Erf"]) == ["Gelu"]


def test_an_erf_that_is_no_gelu_stays_to_be_refused_by_name():
    graph = graph_of([helper.make_node("Erf", ["x"], ["y"])], {"x": [1, 4]}, ["y"], {})
    assert [node.op_type for node in for_hexagon(graph.model).model.graph.node] == ["Erf"]


def test_ceil_mode_becomes_end_padding():
    pool = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    graph = graph_of([pool], {"x": [1, 2, 8, 8]}, ["y"], {})
    left = for_hexagon(graph.model).model.graph.node
    attributes = {item.name: helper.get_attribute_value(item) for item in left[0].attribute}
    assert attributes["ceil_mode"] == 0
    assert list(attributes["pads"]) == [0, 0, 1, 1]
    check([pool], [1, 2, 8, 8])


def test_gather_of_several_indices():
    nodes = [helper.make_node("Gather", ["x", "i"], ["y"], axis=1)]
    left = check(nodes, [1, 6, 3], {"i": np.array([4, 5, 0, -4])}, gone=["Gather"])
    assert left.count("Slice") == 3  # 4..5, 0, and -4 = 2


def test_group_normalization():
    nodes = [helper.make_node("GroupNormalization", ["x", "g", "b"], ["y"], num_groups=2, epsilon=1e-3)]
    constants = {"g": np.array([1.5, 0.5], np.float32), "b": np.array([0.1, -0.2], np.float32)}
    check(nodes, [1, 6, 4, 4], constants, gone=["GroupNormalization"], tolerance=1e-5)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_recurrent_nets_unroll(kind, direction):
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    ways, hidden, width, steps = (2 if direction == "bidirectional" else 1), 5, 3, 6
    constants = {
        "W": weights(ways, gates * hidden, width, seed=1),
        "R": weights(ways, gates * hidden, hidden, seed=2),
        "B": weights(ways, 2 * gates * hidden, seed=3),
        "h0": weights(ways, 1, hidden, seed=4),
    }
    attributes = {"linear_before_reset": 1} if kind == "GRU" else {}
    outputs = ["y", "h", "c"] if kind == "LSTM" else ["y", "h"]
    node = helper.make_node(
        kind, ["x", "W", "R", "B", "", "h0"], outputs, hidden_size=hidden, direction=direction, **attributes
    )
    check([node], [steps, 1, width], constants, gone=[kind], outputs=outputs, tolerance=1e-5)


def test_gru_that_resets_before_the_product():
    constants = {"W": weights(1, 12, 3), "R": weights(1, 12, 4, seed=2), "B": weights(1, 24, seed=3)}
    node = helper.make_node("GRU", ["x", "W", "R", "B"], ["y"], hidden_size=4)
    check([node], [5, 1, 3], constants, gone=["GRU"], tolerance=1e-5)


def test_integer_mask_becomes_float_arithmetic_and_bounded():
    nodes = [
        helper.make_node("Cast", ["mask"], ["kept"], to=TensorProto.BOOL),
        helper.make_node("Where", ["kept", "zero", "lowest"], ["bias"]),
        helper.make_node("Add", ["scores", "bias"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["attention"]),
        helper.make_node("Cast", ["mask"], ["weight"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["attention", "weight"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 8, 8]),
            helper.make_tensor_value_info("mask", TensorProto.INT64, [1, 8]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 8])],
        [
            onnx.numpy_helper.from_array(np.float32(0), "zero"),
            onnx.numpy_helper.from_array(np.float32(np.finfo(np.float32).min), "lowest"),
        ],
    )
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{index}"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    rewritten = for_hexagon(model)
    assert rewritten.fed == {"mask": "float32"}
    assert not {"Cast", "Where"} & {node.op_type for node in rewritten.model.graph.node}
    assert all(np.abs(onnx.numpy_helper.to_array(tensor)).max() <= 100 for tensor in rewritten.model.graph.initializer)
    sample = {"scores": images(1, 1, 8, 8)[0], "mask": np.array([[1, 1, 1, 1, 1, 0, 0, 0]], np.int64)}
    before = run(model, sample)[0]
    after = run(rewritten.model, as_fed(sample, rewritten.fed))[0]
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_indices_are_fed_as_int32():
    graph = graph_of(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        {"ids": [1, 4]},
        ["y"],
        {"table": weights(10, 3)},
        dtype=TensorProto.INT64,
    )
    rewritten = for_hexagon(graph.model)
    assert rewritten.fed == {"ids": "int32"}
    ids = np.array([[3, 1, 9, 0]], np.int64)
    np.testing.assert_array_equal(
        run(graph.model, {"ids": ids})[0], run(rewritten.model, as_fed({"ids": ids}, rewritten.fed))[0]
    )


def test_faint_channels_are_zeroed():
    filters = weights(4, 3, 1, 1)
    filters[2] *= 1e-7
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1])
    graph = graph_of([node], {"x": [1, 3, 4, 4]}, ["y"], {"w": filters})
    rewritten = for_hexagon(graph.model)
    assert rewritten.applied == {"faint channel": 1}
    kept = onnx.numpy_helper.to_array(rewritten.model.graph.initializer[0])
    assert not kept[2].any()
    np.testing.assert_array_equal(kept[[0, 1, 3]], filters[[0, 1, 3]])


def test_the_original_is_left_alone():
    graph = graph_of([helper.make_node("Celu", ["x"], ["y"])], {"x": [1, 4]}, ["y"], {})
    before = graph.model.SerializeToString()
    for_hexagon(graph.model)
    assert graph.model.SerializeToString() == before


def test_only_even_weights_share_one_scale():
    even, uneven = weights(32, 64), weights(32, 64, seed=2)
    uneven[0] *= 100
    nodes = [
        helper.make_node("Gemm", ["x", "even"], ["h"], name="even", transB=1),
        helper.make_node("Gemm", ["x", "uneven"], ["y"], name="uneven", transB=1),
    ]
    graph = graph_of(nodes, {"x": [1, 64]}, ["h", "y"], {"even": even, "uneven": uneven})
    assert tolerant_weights(graph.model, QNN_A8W8) == {"even"}


@pytest.mark.parametrize(("faintest", "one_scale"), [(1.0, True), (0.5, True), (0.02, False)])
def test_a_depthwise_convolution_shares_a_scale_only_where_its_faintest_channel_can(faintest, one_scale):
    channels = np.random.default_rng(0).uniform(-1, 1, (64, 1, 3, 3)).astype(np.float32)
    channels[7] *= faintest  # one of 64: the layer as a whole would not show it
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], pads=[1] * 4, group=64, name="depthwise")
    graph = graph_of([node], {"x": [1, 64, 8, 8]}, ["y"], {"w": channels})
    assert tolerant_weights(graph.model, QNN_A8W8) == (frozenset({"depthwise"}) if one_scale else frozenset())
