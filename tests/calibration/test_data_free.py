"""Calibration without data: synthetic samples that fit the graph, marked as such."""

from __future__ import annotations

import numpy as np
import pytest
import quantizer_graphs as cases
import torch
import zoo
from calibration_graphs import graph_from_text

from edgedeploy.calibration.datafree import statistics_distance, synthetic_dataset
from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.quantizer import quantize
from edgedeploy.calibration.schemes import ONNXRUNTIME_X86
from edgedeploy.calibration.session import Calibration
from edgedeploy.calibration.simulate import simulate
from edgedeploy.errors import InputError
from edgedeploy.graph.capture import capture
from edgedeploy.model.load import load_model


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    path = tmp_path_factory.mktemp("digits") / "digits.pt2"
    torch.export.save(torch.export.export(zoo.digits_cnn(), (torch.zeros(1, 1, 8, 8),)), path)
    return capture(load_model(path))


def test_images_are_fitted_to_the_batch_norm_statistics(digits):
    name = digits.inputs[0].name
    noise = np.random.default_rng(0).standard_normal((32, 1, 8, 8)).astype(np.float32)
    fitted = statistics_distance(digits, list(synthetic_dataset(digits)))
    assert fitted < 0.8 * statistics_distance(digits, list(ArrayDataset({name: noise})))


def test_a_data_free_network_still_classifies_and_its_table_says_how_it_was_made(digits):
    calibration = Calibration(digits, None)
    assert calibration.data_free and calibration.table.provenance.data_free
    _, _, test, _ = zoo.digits_data()
    samples = list(ArrayDataset({digits.inputs[0].name: test[:200].astype(np.float32)}))
    output = digits.outputs[0].name
    before = simulate(digits, samples)[output].argmax(-1)
    after = simulate(quantize(digits, calibration.table, ONNXRUNTIME_X86), samples)[output].argmax(-1)
    assert (before == after).mean() > 0.9


def test_tokens_come_from_the_whole_vocabulary():
    samples = list(synthetic_dataset(cases.embedding()))
    tokens = np.concatenate([sample["ids"] for sample in samples])
    assert tokens.dtype == np.int64 and tokens.shape == (32, 6)
    assert set(np.unique(tokens)) == set(range(7))


def test_the_same_graph_gives_the_same_samples():
    first, second = (synthetic_dataset(cases.residual()) for _ in range(2))
    assert first.digest == second.digest
    assert synthetic_dataset(cases.residual(), seed=1).digest != first.digest


def test_masks_are_ones_up_to_a_length():
    graph = graph_from_text(
        """masked (int64[1, 6] mask) => (float[1, 6] y) {
            y = Cast <to = 1> (mask)
        }"""
    )
    masks = np.concatenate([sample["mask"] for sample in synthetic_dataset(graph)])
    assert (np.diff(masks, axis=1) <= 0).all() and set(np.unique(masks)) == {0, 1}


def test_an_input_that_cannot_be_guessed_is_refused():
    graph = graph_from_text("wide (double[1, 4] x) => (double[1, 4] y) { y = Neg(x) }")
    with pytest.raises(InputError, match="cannot be calibrated without data"):
        synthetic_dataset(graph)
