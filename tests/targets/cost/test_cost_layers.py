import cost_graphs as graphs
import pytest
from onnx import helper

from edgedeploy.errors import InputError
from edgedeploy.graph.graph import graph_from_onnx
from edgedeploy.targets.cost.layers import Kind, layers
from edgedeploy.targets.cost.memory import peak_activation_elements
from edgedeploy.targets.cost.precision import precision_of

SHAPE = [1, 8, 4, 4]


def executed(nodes, weights=(), inputs=None, output=SHAPE):
    inputs = inputs or {"x": SHAPE}
    return layers(graph_from_onnx(graphs.model(nodes, inputs, {"y": output}, weights)).facts)


def test_a_relu_belongs_to_its_convolution():
    found = layers(graphs.chain(3).facts)
    assert [layer.ops for layer in found] == [("Conv", "Relu")] * 3
    assert [layer.macs for layer in found] == [256 * 32 * 27, 256 * 32 * 288, 256 * 32 * 288]


def test_a_relu_whose_input_others_read_stands_alone():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Add", ["c", "r"], ["y"]),
    ]
    found = executed(nodes, {"w": (8, 8, 1, 1)})
    assert [layer.ops for layer in found] == [("Conv",), ("Relu",), ("Add",)]


def test_x_times_sigmoid_of_x_is_one_activation():
    nodes = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])]
    (found,) = executed(nodes)
    assert found.kind is Kind.ACTIVATION and found.ops == ("Sigmoid", "Mul")


def test_a_gate_is_not_a_swish():
    nodes = [helper.make_node("Sigmoid", ["z"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])]
    found = executed(nodes, inputs={"x": SHAPE, "z": SHAPE})
    assert [layer.kind for layer in found] == [Kind.ACTIVATION, Kind.ELEMENTWISE]


@pytest.mark.parametrize(
    ("groups", "weight", "kind"), [(8, (8, 1, 3, 3), Kind.DEPTHWISE), (2, (8, 4, 3, 3), Kind.CONV)]
)
def test_depthwise_is_told_from_grouped(groups, weight, kind):
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=groups, pads=[1, 1, 1, 1])
    (found,) = executed([node], {"w": weight})
    assert (found.kind, found.groups, found.taps, found.rows) == (kind, groups, 9, 16)


def test_a_product_of_two_activations_is_attention():
    (found,) = executed(
        [helper.make_node("MatMul", ["x", "z"], ["y"])],
        inputs={"x": [1, 2, 6, 4], "z": [1, 2, 4, 6]},
        output=[1, 2, 6, 6],
    )
    assert found.kind is Kind.ATTENTION and found.cin == 4 and found.rows == 12


def test_an_op_without_a_class_is_listed_as_unknown():
    found = executed([helper.make_node("Hardmax", ["x"], ["y"], axis=1)])
    assert [layer.kind for layer in found] == [Kind.OTHER]


def test_peak_memory_counts_tensors_that_live_at_once():
    # x is read twice, so at the Add three tensors of 128 are alive: x, the pool's output and the sum.
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[1, 1]),
        helper.make_node("Add", ["x", "p"], ["y"]),
    ]
    facts = graph_from_onnx(graphs.model(nodes, {"x": SHAPE}, {"y": SHAPE})).facts
    assert peak_activation_elements(facts) == 3 * 128


def test_peak_memory_of_a_chain_is_its_widest_pair():
    assert peak_activation_elements(graphs.chain(4).facts) == 2 * 32 * 256


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        ("float32", "float32"),
        ("float16", "float16"),
        ("tflite", "int8"),
        ("tflite-int16x8", "int16"),
        ("qnn-a8w8", "int8"),
        ("qnn-a16w8", "int16"),
        ("onnxruntime-x86-reduced", "int8"),
        ("tensorrt", "int8"),
    ],
)
def test_a_scheme_names_its_arithmetic(scheme, name):
    assert precision_of(scheme).name == name


@pytest.mark.parametrize("name", ["something else", "floot16", "fp16", "int8x", "my-int8-scheme", "\x1b]0;x"])
def test_nothing_is_guessed_from_a_name(name):
    with pytest.raises(InputError, match="float16") as caught:
        precision_of(name)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(("perm", "kind"), [([0, 2, 3, 1], Kind.LAYOUT), ([0, 1, 3, 2], Kind.PERMUTE)])
def test_a_change_of_layout_is_told_from_a_shuffle(perm, kind):
    shape = [[1, 8, 4, 4][axis] for axis in perm]
    (found,) = executed([helper.make_node("Transpose", ["x"], ["y"], perm=perm)], output=shape)
    assert found.kind is kind


def test_channels_are_the_second_axis_of_images_and_the_last_of_sequences():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["t", "m"], ["y"]),
    ]
    convolution, turned, product = executed(nodes, {"w": (6, 8, 1, 1), "m": (6, 5)}, output=[1, 4, 4, 5])
    assert (convolution.read[0], convolution.written[0]) == ((128, 8), (96, 6))
    assert turned.written[0] == (96, 6)
    assert product.written[0] == (80, 5)
