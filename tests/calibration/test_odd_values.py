"""Odd tensors all the way: every scheme quantizes them, what comes out is finite, and the user hears about them."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from calibration_graphs import graph_from_text, one_op
from notes import Notes
from onnx import numpy_helper

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.quantizer import quantize
from edgedeploy.calibration.schemes import SCHEMES
from edgedeploy.calibration.session import Calibration
from edgedeploy.calibration.simulate import simulate

rng = np.random.default_rng(4)


def filled(value: float) -> np.ndarray:
    return np.full((12, 1, 6, 6), value, np.float32)


def with_one(value: float) -> np.ndarray:
    values = rng.normal(size=(12, 1, 6, 6)).astype(np.float32)
    values[3, 0, 2, 2] = value
    return values


ODD = {
    "constant": filled(3.5),
    "negative constant": filled(-3.5),
    "all zero": filled(0.0),
    "denormal": filled(1e-40),
    "tiny": rng.normal(size=(12, 1, 6, 6)).astype(np.float32) * np.float32(1e-30),
    "one value of 1e30": with_one(1e30),
    "one value of 1e25": with_one(1e25),
    "all 1e30": filled(1e30),
    "one sample": rng.normal(size=(1, 1, 6, 6)).astype(np.float32),
}


def small_net():
    return graph_from_text(
        """odd (float[1, 1, 6, 6] x) => (float[1, 2, 4, 4] y) {
            c = Conv (x, w)
            r = Relu(c)
            s = Sigmoid(r)
            y = Add(r, s)
        }""",
        w=(np.arange(18).reshape(2, 1, 3, 3) / 18 - 0.5).astype(np.float32),
    )


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@pytest.mark.parametrize("kind", ODD)
def test_every_scheme_takes_odd_data(kind, scheme):
    graph, data = small_net(), ArrayDataset({"x": ODD[kind]})
    calibration = Calibration(graph, data)
    model = quantize(graph, calibration.table_for(scheme), scheme)
    onnx.checker.check_model(model, full_check=True)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if "scale" in tensor.name and values.dtype == np.float32:
            assert (values > 0).all() and np.isfinite(values).all(), tensor.name
    assert np.isfinite(simulate(model, data)["y"]).all()


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_a_model_of_one_op_goes_through_every_scheme(scheme):
    graph = one_op()
    data = ArrayDataset({"x": rng.normal(size=(20, 4)).astype(np.float32)})
    model = quantize(graph, Calibration(graph, data).table_for(scheme), scheme)
    reference, outputs = simulate(graph, data)["y"], simulate(model, data)["y"]
    assert np.abs(outputs - reference).max() < 0.05


def test_a_branch_that_no_sample_reaches_is_named_with_what_to_do():
    graph = graph_from_text(
        "gate (float[1, 4] x) => (float[1, 4] z) { over = Sub(x, limit)\n on = Relu(over)\n z = Add(on, x) }",
        limit=np.array(5, np.float32),
    )
    notes = Notes()
    data = ArrayDataset({"x": rng.uniform(size=(6, 4)).astype(np.float32)})
    _ = Calibration(graph, data, progress=notes).table
    assert any("1 of 3 tensors" in text and "'on'" in text and "add samples" in text for text in notes.texts)


def test_nothing_is_said_of_data_that_reach_everything():
    notes = Notes()
    _ = Calibration(one_op(), ArrayDataset({"x": np.eye(4, dtype=np.float32)}), progress=notes).table
    assert not notes.texts


def test_the_report_of_a_cached_table_names_the_branch_as_well(tmp_path):
    data = ArrayDataset({"x": -rng.uniform(size=(6, 4)).astype(np.float32)})
    for _ in range(2):
        notes = Notes()
        _ = Calibration(one_op(), data, cache=tmp_path, progress=notes).table
        assert any("'y'" in text for text in notes.texts)


def test_what_every_method_gives_an_odd_tensor_is_a_number():
    for kind, values in ODD.items():
        table = Calibration(small_net(), ArrayDataset({"x": values})).table
        for scheme in SCHEMES.values():
            assert not any(math.isnan(value) for value in table.choice("x", scheme.activation).sqnr_db.values()), kind
