"""Accuracy repair on a trained network: each repair helps where it claims to, and each can be switched off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import quantizer_graphs as cases
import torch
import zoo
from calibration_graphs import graph_from_text
from quantizer_graphs import Quantized, calibrated, chain, normal

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.equalize import equalize
from edgedeploy.calibration.mixed_precision import Goal, mix_precision, raised
from edgedeploy.calibration.quantizer import quantize
from edgedeploy.calibration.quantizer.layers import layers
from edgedeploy.calibration.schemes import ONNXRUNTIME_X86, QNN_A8W8, QNN_A16W8, TENSORRT, TFLITE
from edgedeploy.calibration.sensitivity import LayerSensitivity, SensitivityRanking, rank_layers
from edgedeploy.calibration.session import Calibration
from edgedeploy.calibration.simulate import simulate, sqnr_db
from edgedeploy.compare import compare
from edgedeploy.device_profiles.schema import Quality
from edgedeploy.errors import InputError
from edgedeploy.graph.capture import capture
from edgedeploy.model.load import load_model


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The trained digits CNN: graph, table, test samples and labels."""
    path = tmp_path_factory.mktemp("digits") / "digits.pt2"
    torch.export.save(torch.export.export(zoo.digits_cnn(), (torch.zeros(1, 1, 8, 8),)), path)
    graph = capture(load_model(path))
    train, _, test, labels = zoo.digits_data()
    name = graph.inputs[0].name
    table = Calibration(graph, ArrayDataset({name: train[:100].astype(np.float32)})).table
    samples = list(ArrayDataset({name: test[:150].astype(np.float32)}))
    return graph, table, samples, labels[:150]


def test_bias_correction_takes_the_mean_error_out_of_every_channel():
    # Three weight bits make the error large; the input's mean is far from zero.
    weight = replace(ONNXRUNTIME_X86.weight, bits=4)
    scheme = replace(ONNXRUNTIME_X86, weight=weight, float_outputs=frozenset({"Conv"}))
    graph = graph_from_text(
        "one (float[1, 6, 9, 9] x) => (float[1, 5, 9, 9] y) { y = Conv <pads = [1, 1, 1, 1]> (x, w) }",
        w=normal(5, 6, 3, 3),
    )
    arrays = {"x": np.random.default_rng(0).normal(3, 1, (48, 6, 9, 9)).astype(np.float32)}
    table, samples = Calibration(graph, ArrayDataset(arrays)).table, list(ArrayDataset(arrays))
    reference = simulate(graph, samples)["y"]

    def mean_error(**options) -> float:
        outputs = simulate(quantize(graph, table, scheme, **options), samples)["y"]
        return float(np.abs((outputs - reference).mean(axis=(0, 1, 3, 4))).max())

    assert mean_error() < 0.05 * mean_error(bias_correction=False)


def test_bias_correction_reaches_grouped_transposed_and_matrix_layers():
    for case, outputs in ((cases.branches, ("g",)), (cases.upsampling, ("g", "y")), (cases.residual, ("c2", "y"))):
        graph = case()
        table, _ = calibrated(graph)
        corrected, plain = (Quantized(quantize(graph, table, TENSORRT, bias_correction=on)) for on in (True, False))
        for output in outputs:
            if not corrected.is_integer(corrected.node(output).input[1]):
                continue
            before = plain.node(output).input[2] if len(plain.node(output).input) > 2 else None
            after = corrected.constants[corrected.node(output).input[2]]
            old = plain.constants[before] if before else np.zeros_like(after)
            assert after.shape == old.shape and not np.array_equal(after, old), output


def test_bias_correction_raises_the_accuracy_of_a_trained_network(digits):
    graph, table, samples, _ = digits
    reference = simulate(graph, samples)
    plain, corrected = (
        sqnr_db(reference, simulate(quantize(graph, table, QNN_A16W8, bias_correction=on), samples))
        for on in (False, True)
    )
    assert corrected > plain + 0.5


def test_equalization_changes_no_output_and_repairs_per_tensor_weights():
    graph = chain(uneven=True)
    table, samples = calibrated(graph)
    even = equalize(graph, table)
    assert len(even.pairs) == 2
    reference = simulate(graph, samples)
    assert sqnr_db(reference, simulate(even.graph, samples)) > 100
    even_table, _ = calibrated(even.graph)
    scheme = replace(TFLITE, weight=replace(TFLITE.weight, per_channel=False))
    before = sqnr_db(reference, simulate(quantize(graph, table, scheme), samples))
    after = sqnr_db(reference, simulate(quantize(even.graph, even_table, scheme), samples))
    assert after > before + 6


def test_equalization_still_changes_no_output_where_samples_go_further_than_calibration_did():
    graph = chain(uneven=True)
    table, samples = calibrated(graph)
    twice = [{name: 2 * values for name, values in sample.items()} for sample in samples]
    assert sqnr_db(simulate(graph, twice), simulate(equalize(graph, table).graph, twice)) > 100


def test_equalization_leaves_alone_what_it_cannot_scale():
    assert not equalize(cases.residual(), calibrated(cases.residual())[0]).pairs  # the activation has two readers
    without_table = equalize(chain(uneven=True))
    assert len(without_table.pairs) == 1  # the pair around ReLU6 needs to know how far its channels reach


def test_the_layer_that_was_damaged_ranks_first(tmp_path):
    graph = cases.residual()
    for tensor in graph.model.graph.initializer:
        if tensor.name == "w2":  # one huge weight ruins the grid of all others
            values = normal(8, 8, 3, 3, scale=0.1)
            values[:, 0, 0, 0] = 40
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, "w2"))
    for node in graph.model.graph.node:
        node.name = node.output[0]
    table, samples = calibrated(graph)
    ranking = rank_layers(graph, table, TENSORRT, samples)
    assert ranking.layers[0].layer.name == "c2"
    assert [entry.sqnr_db for entry in ranking.layers] == sorted(entry.sqnr_db for entry in ranking.layers)
    assert sum(entry.macs_share for entry in ranking.layers) == pytest.approx(1)
    assert "c2" in ranking.table(1).splitlines()[1]
    ranking.plot(tmp_path / "ranking.png")
    assert (tmp_path / "ranking.png").read_bytes().startswith(b"\x89PNG")


def goal(**gates):
    return Goal(Quality(**gates))


def test_mixed_precision_keeps_the_fewest_layers_that_meet_the_goal(digits):
    graph, table, samples, labels = digits
    scheme = replace(ONNXRUNTIME_X86, weight=replace(ONNXRUNTIME_X86.weight, bits=4))
    ranking = rank_layers(graph, table, scheme, samples[:8])
    plain = mix_precision(graph, table, scheme, ranking, samples[:40], goal(min_sqnr_db=-100))
    assert not plain.kept and plain.met and plain.integer_macs_share == 1
    wanted = plain.plain.sqnr_db + 4
    mixture = mix_precision(
        graph, table, scheme, ranking, samples[:40], goal(min_sqnr_db=wanted, max_accuracy_drop=0.05),
        labels={graph.outputs[0].name: labels[:40].reshape(40, -1)},
    )  # fmt: skip
    assert mixture.met and 0 < len(mixture.kept) < len(ranking.layers)
    assert mixture.mixed.sqnr_db >= wanted > mixture.plain.sqnr_db
    for layer in mixture.kept:
        fewer = frozenset(name for other in mixture.kept if other is not layer for name in other.nodes)
        reference = simulate(graph, samples[:40])
        outputs = simulate(quantize(graph, table, scheme, exclude=fewer), samples[:40])
        [found] = compare(reference, outputs)
        assert found.sqnr_db < wanted, f"{layer.name} was not needed"


def test_a_goal_out_of_reach_says_so(digits):
    graph, table, samples, _ = digits
    ranking = rank_layers(graph, table, TFLITE, samples[:4])
    mixture = mix_precision(graph, table, TFLITE, ranking, samples[:10], goal(min_sqnr_db=200), max_layers=2)
    assert not mixture.met and len(mixture.kept) <= 2


def test_layers_are_raised_to_the_schemes_higher_format_or_left_float():
    graph = cases.residual()
    layer = next(item for item in layers(graph, QNN_A8W8) if item.op_type == "Add")
    assert raised((layer,), QNN_A8W8) == (frozenset(), frozenset(layer.tensors))
    assert set(layer.tensors) == {"r1", "c2", "r2"}
    assert raised((layer,), ONNXRUNTIME_X86) == (frozenset(layer.nodes), frozenset())


def test_mixed_precision_without_a_goal_is_refused():
    with pytest.raises(InputError, match="needs a goal"):
        Goal(Quality())


def test_a_ranking_is_plain_data():
    layer = layers(cases.residual(), TFLITE)[0]
    ranking = SensitivityRanking("tflite", 1, (LayerSensitivity(layer, "stem", 1.0, 12.5),))
    assert "12.50" in ranking.table() and "(stem)" in ranking.table()
