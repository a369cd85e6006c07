"""A dynamic batch set to 1: same names, same numbers, everything static."""

from __future__ import annotations

import numpy as np
import onnxruntime
import zoo

from edgedeploy.graph.batch import fixed_batch
from edgedeploy.graph.capture import capture
from edgedeploy.model.load import load_model


def test_fixing_the_batch_keeps_names_numbers_and_statistics(tmp_path):
    zoo.digits_example.write(tmp_path)
    dynamic = capture(load_model(tmp_path / "model.pt"), dynamic_batch=True)
    fixed = fixed_batch(dynamic)
    assert dynamic.inputs[0].shape[0] == "batch"
    assert fixed.inputs[0].shape == (1, 1, 8, 8)
    assert all(tensor.is_static for op in fixed.facts for tensor in (*op.inputs, *op.outputs))
    assert {op.outputs[0].name for op in fixed.facts} <= {op.outputs[0].name for op in dynamic.facts}
    assert fixed.batch_norms.keys() == dynamic.batch_norms.keys() != set()
    image = zoo.digits_data()[2][:1]
    [want], [got] = (
        onnxruntime.InferenceSession(graph.model.SerializeToString()).run(None, {"image": image})
        for graph in (dynamic, fixed)
    )
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_a_static_graph_is_returned_as_it_is(tmp_path):
    zoo.digits_example.write(tmp_path)
    graph = capture(load_model(tmp_path / "model.pt"), dynamic_batch=False)
    assert fixed_batch(graph) is graph
