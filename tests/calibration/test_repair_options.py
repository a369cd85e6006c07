"""Repairs as a user switches them: equalization has to prove itself on samples that calibration did not see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from calibration_graphs import graph_from_text, one_op
from notes import Notes
from quantizer_graphs import chain

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.repair import Repairs, repaired
from edgedeploy.calibration.schemes import TFLITE
from edgedeploy.calibration.session import Calibration
from edgedeploy.calibration.simulate import simulate, sqnr_db

PER_TENSOR = replace(TFLITE, weight=replace(TFLITE.weight, per_channel=False))
WANTED = Repairs(equalize=True)


def calibration_of(graph, count=24, scale=1.0):
    shape = tuple(size for size in graph.inputs[0].shape)
    values = np.random.default_rng(5).normal(size=(count, *shape[1:])) * scale
    return Calibration(graph, ArrayDataset({"x": values.astype(np.float32)}))


def test_uneven_channels_are_equalized_and_the_manifest_says_what_that_gave():
    graph, notes = chain(uneven=True), Notes()
    calibration = calibration_of(graph)
    done = repaired(WANTED, graph, calibration, PER_TENSOR, notes)
    facts = done.details["equalization"]
    assert facts["applied"] and facts["pairs"] == 2
    assert facts["sqnr_db_after"] > facts["sqnr_db_before"] + 3
    assert facts["held_back_samples"] == 3
    assert any("Equalized 2 pairs" in text for text in notes.texts)
    assert done.calibration.graph is done.graph
    samples = list(calibration.data)
    assert sqnr_db(simulate(graph, samples), simulate(done.graph, samples)) > 100


def test_nothing_is_scaled_unasked():
    graph = chain(uneven=True)
    calibration = calibration_of(graph)
    done = repaired(Repairs(), graph, calibration, PER_TENSOR, Notes())
    assert (done.graph, done.calibration, done.details) == (graph, calibration, {})


def test_equalization_that_makes_outputs_worse_is_left_out(monkeypatch):
    """One scale a channel has no use for even weights; here scaling is made to hurt, as a clipped channel would."""
    from edgedeploy.calibration import repair

    graph, notes = chain(uneven=False), Notes()

    def harmful(source, table):
        from edgedeploy.calibration.equalize import Equalized

        return Equalized(chain(uneven=True), (("a", "c"),)) if source is graph else None

    monkeypatch.setattr(repair, "equalize", harmful)
    done = repaired(WANTED, graph, calibration_of(graph), PER_TENSOR, notes)
    facts = done.details["equalization"]
    assert done.graph is graph and not facts["applied"]
    assert facts["sqnr_db_after"] < facts["sqnr_db_before"]
    assert any("left out: on 3 held-back samples it gives" in text for text in notes.texts)


@pytest.mark.parametrize(
    ("graph", "count", "words"),
    [(chain(uneven=True), 1, "no calibration samples to hold back"), (one_op(), 16, "nothing but an activation")],
    ids=["one sample", "no pair"],
)
def test_where_it_cannot_be_done_a_note_says_why(graph, count, words):
    notes = Notes()
    done = repaired(WANTED, graph, calibration_of(graph, count), PER_TENSOR, notes)
    assert done.graph is graph
    assert words in done.details["equalization"]["why"]
    assert any(words in text for text in notes.texts)


def test_options_say_which_repairs_are_made():
    assert Repairs.read({"equalize": "true", "bias_correction": "false", "speed": "high"}) == Repairs(
        bias_correction=False, equalize=True
    )
    assert Repairs.read({}) == Repairs()


def test_the_held_back_samples_do_not_depend_on_the_order_of_the_data():
    graph = graph_from_text("one (float[1, 4] x) => (float[1, 4] y) { y = Relu(x) }")
    values = np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)
    held = []
    for order in (np.arange(40), np.random.default_rng(2).permutation(40)):
        parts = Calibration(graph, ArrayDataset({"x": values[order]})).parts
        assert parts is not None and len(parts[0]) == 35
        held.append(np.concatenate([sample["x"] for sample in parts[1]]))
    np.testing.assert_array_equal(*held)
