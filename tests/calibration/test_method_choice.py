"""The method for a whole model: chosen by the error of its outputs on samples that the ranges did not see."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.method_choice import MARGIN_DB, MethodChoice, clearly_best
from edgedeploy.calibration.options import METHODS, CalibrationOptions
from edgedeploy.calibration.scheme import IntegerFormat
from edgedeploy.calibration.schemes import TFLITE
from edgedeploy.calibration.session import Calibration
from edgedeploy.graph.graph import graph_from_onnx

rng = np.random.default_rng(5)


def rare_values_matter():
    """A linear layer whose output is made of few large inputs: clipping them is cheap per tensor, fatal in the end."""
    weight = np.eye(32, dtype=np.float32)
    weight[:16] *= 1e-3
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 32]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    values = rng.normal(size=(64, 32)).astype(np.float32)
    values[:, 16:] *= rng.choice([0.02, 40.0], p=[0.98, 0.02], size=(64, 16)).astype(np.float32)
    return graph_from_onnx(model), ArrayDataset({"x": values})


def test_the_chosen_method_is_as_good_as_the_best_on_the_outputs():
    graph, data = rare_values_matter()
    choice = Calibration(graph, data).method_choice(TFLITE)
    assert set(choice.sqnr_db) == set(METHODS)
    assert choice.samples == 8
    assert choice.sqnr_db[choice.method] >= max(choice.sqnr_db.values()) - MARGIN_DB


@pytest.mark.parametrize(
    ("measured", "taken"),
    [
        ({"auto": 30.9, "minmax": 30.0, "mse": 29.0}, "minmax"),
        ({"auto": 31.1, "minmax": 30.0, "mse": 29.0}, "auto"),
        ({"auto": 31.1, "minmax": 30.0, "mse": 35.0}, "mse"),
        ({"auto": float("inf"), "minmax": float("inf"), "mse": 20.0}, "minmax"),
    ],
)
def test_only_a_clear_lead_displaces_minmax(measured, taken):
    assert clearly_best(measured) == taken


def test_the_table_is_read_by_the_chosen_method():
    graph, data = rare_values_matter()
    calibration = Calibration(graph, data)
    method = calibration.method_choice(TFLITE).method
    fmt = IntegerFormat()
    assert calibration.table_for(TFLITE).range("x", fmt) == calibration.table.range("x", fmt, method)


def test_a_method_that_the_user_named_is_kept():
    graph, data = rare_values_matter()
    calibration = Calibration(graph, data, CalibrationOptions(method="entropy"))
    assert set(calibration.method_choice(TFLITE).sqnr_db) == {"entropy"}
    assert calibration.table_for(TFLITE).range("x", IntegerFormat()) == calibration.table.range("x", IntegerFormat())
    plain = Calibration(graph, data, CalibrationOptions(method="entropy", round_by_outputs=False))
    assert plain.method_choice(TFLITE) is None
    assert plain.table_for(TFLITE) == plain.table


@pytest.mark.parametrize(("rounded_db", "rounds"), [(30.1, True), (30.0, False), (29.0, False), (None, False)])
def test_weights_are_rounded_by_outputs_only_where_that_is_better(rounded_db, rounds):
    assert MethodChoice("minmax", {"minmax": 30.0, "mse": 20.0}, 8, rounded_db).rounds_by_outputs is rounds


def test_the_table_carries_what_weights_are_rounded_by_where_that_was_better():
    graph, data = rare_values_matter()
    calibration = Calibration(graph, data)
    choice = calibration.method_choice(TFLITE)
    assert choice.rounded_db is not None
    assert (calibration.table_for(TFLITE).moments is not None) is choice.rounds_by_outputs


def test_one_sample_leaves_nothing_to_compare():
    graph, data = rare_values_matter()
    assert Calibration(graph, data.take(1)).method_choice(TFLITE) is None


@pytest.mark.parametrize("fold", [0, 3])
def test_a_fold_taken_away_is_not_seen(fold):
    graph, data = rare_values_matter()
    table = Calibration(graph, data).table
    statistics, reduced = table.statistics("x"), table.without_fold(fold).statistics("x")
    assert reduced.histogram.total == statistics.histogram.total - statistics.folds[fold].total
    assert len(reduced.folds) == len(statistics.folds) - 1
