"""Results of different size that leave the graph in one tensor: none may lose its own precision to the largest."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from calibration_graphs import graph_from_text
from quantizer_graphs import calibrated

from edgedeploy.calibration.quantizer import quantize
from edgedeploy.calibration.quantizer.carried import carried
from edgedeploy.calibration.schemes import (
    ONNXRUNTIME_ARM,
    ONNXRUNTIME_X86,
    QNN_A8W8,
    QNN_A16W8,
    TENSORRT,
    TFLITE,
    TFLITE_INT16X8,
)
from edgedeploy.calibration.simulate import simulate

SCHEMES = [ONNXRUNTIME_ARM, ONNXRUNTIME_X86, QNN_A8W8, QNN_A16W8, TENSORRT, TFLITE, TFLITE_INT16X8]

DETECTOR = """boxes_and_scores (float[1, 3, 8, 8] x) => (float[1, 32, 7] y)
    <float[8, 3, 3, 3] w = {}, float[7, 8, 1, 1] head = {}, float big = {{640}}, int64[3] flat = {{1, 7, 32}},
     int64[2] parts = {{4, 3}}> {{
        f = Conv <pads = [1, 1, 1, 1], strides = [2, 1]> (x, w)
        r = Relu (f)
        h = Conv (r, head)
        t = Reshape (h, flat)
        b, s = Split <axis = 1> (t, parts)
        box = Sigmoid (b)
        pixels = Mul (box, big)
        score = Sigmoid (s)
        j = Concat <axis = 1> (pixels, score)
        y = Transpose <perm = [0, 2, 1]> (j)
    }}"""

STATE = """packed_state (float[1, 6] x) => (float[1, 8] y, float[1, 2, 8] state)
    <float[6, 8] w = {}, float big = {{200}}, int64[1] one = {{1}}> {{
        m = MatMul (x, w)
        h = Tanh (m)
        c = Mul (m, big)
        hh = Unsqueeze (h, one)
        cc = Unsqueeze (c, one)
        state = Concat <axis = 1> (hh, cc)
        y = Sigmoid (m)
    }}"""


def values(*shape: int) -> str:
    numbers = np.random.default_rng(sum(shape)).normal(size=int(np.prod(shape)), scale=0.4)
    return "{" + ", ".join(f"{number:.4f}" for number in numbers) + "}"


def worst_db(text: str, scheme, parts) -> float:
    graph = graph_from_text(text)
    table, samples = calibrated(graph)
    model = quantize(graph, table, scheme)
    want, got = (simulate(item, samples, threads=1) for item in (graph, model))
    found = []
    for name, index in parts:
        one, two = (run[name][index] for run in (want, got))
        found.append(10 * np.log10(np.var(one) / np.mean((one - two) ** 2)))
    return min(found)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_scores_survive_beside_boxes_in_pixels(scheme):
    text = DETECTOR.format(values(8, 3, 3, 3), values(7, 8, 1, 1))
    parts = [("y", np.s_[..., :4]), ("y", np.s_[..., 4:])]
    assert worst_db(text, scheme, parts) > 15


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_the_small_part_of_a_packed_state_survives(scheme):
    parts = [("state", np.s_[:, 0, 0]), ("state", np.s_[:, 0, 1]), ("y", np.s_[:])]
    assert worst_db(STATE.format(values(6, 8)), scheme, parts) > 25


@pytest.mark.parametrize("scheme", [ONNXRUNTIME_ARM, ONNXRUNTIME_X86], ids=lambda scheme: scheme.name)
def test_movement_between_float_ops_and_an_output_is_left_alone(scheme):
    graph = graph_from_text(
        """moves (float[1, 6] x, float[1, 2, 4] state) => (float[1, 6] y, float[1, 2, 4] new_state) {
            y = Tanh (x)
            h, c = Split <axis = 1, num_outputs = 2> (state)
            hh = Tanh (h)
            cc = Exp (c)
            new_state = Concat <axis = 1> (hh, cc)
        }"""
    )
    table, _ = calibrated(graph)
    assert not [node for node in quantize(graph, table, scheme).graph.node if "Quantize" in node.op_type]


@pytest.mark.parametrize(("scheme", "scale"), [(QNN_A8W8, 1 / 32768), (TFLITE, 2**-15)], ids=["qnn", "tflite"])
def test_a_raised_tanh_has_the_runtimes_own_16_bit_scale(scheme, scale):
    graph = graph_from_text("cell (float[1, 6] x) => (float[1, 6] y) { y = Tanh (x) }")
    table, _ = calibrated(graph)
    model = quantize(graph, table, scheme, higher=frozenset({"y"}))
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    (last,) = (node for node in model.graph.node if node.output[0] == "y")
    assert float(constants[last.input[1]]) == pytest.approx(scale)


def test_tensorrt_rounds_nothing_to_pick_a_part_of_a_state():
    graph = graph_from_text(
        """pick (float[1, 2, 4] state) => (float[1, 4] y) <int64 first = {0}> {
            h = Gather <axis = 1> (state, first)
            y = Tanh (h)
        }"""
    )
    table, _ = calibrated(graph)
    assert not [node for node in quantize(graph, table, TENSORRT).graph.node if "Quantize" in node.op_type]


def test_what_a_state_passes_is_carried_and_what_is_only_moved_is_not():
    cell = graph_from_text(
        """cell (float[1, 4] x, float[1, 4] h) => (float[1, 4] hn) <float[4, 4] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}> {
            m = MatMul (h, w)
            gate = Sigmoid (x)
            kept = Mul (gate, h)
            fresh = Tanh (m)
            hn = Add (kept, fresh)
        }"""
    )
    assert carried(cell.model, {"hn": "h"}) == {"h", "kept", "hn"}
    cache = graph_from_text(
        """cache (float[1, 1, 4] x, float[1, 3, 4] kept) => (float[1, 3, 4] next, float[1, 4, 4] y)
        <int64[1] one = {1}, int64[1] end = {4}> {
            y = Concat <axis = 1> (kept, x)
            next = Slice (y, one, end, one)
        }"""
    )
    assert not carried(cache.model, {"next": "kept"})
