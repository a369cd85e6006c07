"""Class scores are told from regression heads: a softmax is sure, a linear layer has to behave like logits."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.graph.scores import evident_classes, score_outputs

rng = np.random.default_rng(4)


def model(*nodes):
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 5]) for name in ("x", "y")]
    weight = numpy_helper.from_array(np.eye(5, dtype=np.float32), "w")
    axes = numpy_helper.from_array(np.array([1]), "axes")
    graph = helper.make_graph(list(nodes), "g", info[:1], info[1:], [weight, axes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def test_a_softmax_is_one_in_single_ops_as_well():
    whole = model(helper.make_node("Softmax", ["x"], ["y"]))
    spelt = model(
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("ReduceSum", ["e", "axes"], ["s"]),
        helper.make_node("Div", ["e", "s"], ["y"]),
    )
    other = model(helper.make_node("Exp", ["x"], ["e"]), helper.make_node("Div", ["e", "x"], ["y"]))
    assert score_outputs(whole) == score_outputs(spelt) == {"y": True}
    assert score_outputs(other) == {}
    assert score_outputs(model(helper.make_node("Gemm", ["x", "w"], ["y"]))) == {"y": False}


def test_logits_of_a_classifier_are_classes():
    logits = rng.normal(size=(60, 1, 10))
    np.put_along_axis(logits, rng.integers(0, 10, (60, 1, 1)), 6.0, -1)
    assert evident_classes(logits)
    assert evident_classes(np.where(np.arange(10) == 3, -np.inf, logits))


def test_regression_heads_are_none():
    assert not evident_classes(0.1 * rng.normal(size=(60, 1, 4)))  # box offsets
    assert not evident_classes(rng.uniform(1, 5, (60, 1, 1)) + rng.normal(0, 0.3, (60, 1, 3)))  # opinion scores
    assert not evident_classes(rng.normal(size=(60, 1, 4)) * [50, 1, 0.2, 0.2])  # units of several sizes
    assert not evident_classes(np.full((60, 1, 4), np.nan))
