"""The share of clipped values against a count by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.calibration.clipping import clipped_fraction
from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.session import Calibration
from edgedeploy.graph.graph import graph_from_onnx

VALUES = np.random.default_rng(0).normal(size=(200, 50)).astype(np.float32)


def calibrated():
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 50]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Sigmoid", ["x"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return Calibration(graph_from_onnx(model), ArrayDataset({"x": VALUES})).table


def quantized(scale, dtype=np.int8, zero=0):
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])]
    constants = [
        numpy_helper.from_array(np.float32(scale), "s"),
        numpy_helper.from_array(np.array(zero, dtype), "z"),
    ]
    return onnx.helper.make_model(helper.make_graph(nodes, "g", [], [], constants))


@pytest.mark.parametrize(("scale", "dtype", "zero"), [(0.01, np.int8, 0), (0.01, np.uint8, 128), (0.02, np.uint8, 10)])
def test_the_share_is_what_a_count_gives(scale, dtype, zero):
    codes = np.iinfo(dtype)
    low, high = (codes.min - zero - 0.5) * scale, (codes.max - zero + 0.5) * scale
    want = np.mean((low > VALUES) | (high < VALUES))
    assert want > 0.01
    assert clipped_fraction(quantized(scale, dtype, zero), calibrated()) == pytest.approx(want, abs=0.01)


def test_a_range_that_holds_everything_clips_nothing():
    assert clipped_fraction(quantized(0.1), calibrated()) == 0


def test_a_float_graph_has_no_share():
    assert clipped_fraction(onnx.helper.make_model(helper.make_graph([], "g", [], [])), calibrated()) is None
