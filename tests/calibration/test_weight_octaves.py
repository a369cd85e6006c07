"""Weight scales a power of two apart, for activations wider than the weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import quantizer_graphs as cases
from quantizer_graphs import Quantized, calibrated, error_db

from edgedeploy.calibration.quantizer import quantize
from edgedeploy.calibration.quantizer.encoding import weight_encoding
from edgedeploy.calibration.quantizer.octaves import octaves, spaced
from edgedeploy.calibration.schemes import QNN_A8W8, QNN_A16W8


def weights(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def first_scales(result: Quantized) -> np.ndarray:
    return result.scale(next(node for node in result.nodes if node.op_type == "Conv").input[1])


def test_scales_are_octaves_apart_and_round_well():
    rows = weights(64, 256) * np.exp2(np.random.default_rng(0).uniform(-3, 3, (64, 1))).astype(np.float32)
    scales = octaves(rows, 127)
    exponents = np.log2(scales / scales[0])
    np.testing.assert_array_equal(exponents, np.rint(exponents))
    error = np.clip(np.rint(rows / scales[:, None]), -127, 127) * scales[:, None] - rows
    assert 10 * np.log10((rows**2).sum(1) / (error**2).sum(1)).min() > 33


def test_a_row_without_weights_gets_a_scale_like_the_others():
    rows = weights(8, 32)
    rows[3] = 0
    scales = octaves(rows, 127)
    assert scales[[0, 1, 2, 4]].min() / 2 <= scales[3] <= scales.max() * 2
    assert (octaves(np.zeros((2, 4), np.float32), 127) > 0).all()


def test_a_scale_grows_by_whole_octaves_until_the_bias_fits():
    values = weights(6, 40)
    plain = weight_encoding(values, QNN_A8W8.weight, 0)
    bias = np.float32([0, 0, 1, 1e3, 1e4, 1e5])
    scales = spaced(plain, values, bias, 1e-9).scale
    exponents = np.log2(scales / scales[0])
    np.testing.assert_array_equal(exponents, np.rint(exponents))
    assert (np.abs(bias) / (scales * 1e-9) <= 2.0**30 * (1 + 1e-6)).all()
    np.testing.assert_array_equal(scales[:2], octaves(values, 127)[:2])


def test_only_weights_beside_wider_activations_are_spaced():
    graph = cases.branches()
    table, samples = calibrated(graph)
    for scheme, wide in ((QNN_A8W8, False), (QNN_A16W8, True)):
        model = quantize(graph, table, replace(scheme, octave_weight_scales=True))
        plain = quantize(graph, table, scheme)
        found, before = (first_scales(Quantized(item)) for item in (model, plain))
        exponents = np.log2(found / found[0])
        assert np.array_equal(exponents, np.rint(exponents)) is wide
        assert np.array_equal(found, before) is not wide
        assert error_db(graph, model, samples) > 30
