"""Weights rounded for the outputs' sake: never worse, the same in any order, safe where nothing is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import quantizer_graphs as cases
from calibration_graphs import graph_from_text, two_layers
from quantizer_graphs import Quantized, error_db, feeds, normal

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.input_moments import InputMoments, LayerMoments, collect_moments
from edgedeploy.calibration.options import CalibrationOptions
from edgedeploy.calibration.quantizer import quantize
from edgedeploy.calibration.quantizer.encoding import weight_encoding
from edgedeploy.calibration.quantizer.rounding import damped, quadratic, rounded
from edgedeploy.calibration.quantizer.unfold import unfolding
from edgedeploy.calibration.scheme import IntegerFormat
from edgedeploy.calibration.schemes import ONNXRUNTIME_X86, QNN_A8W8, SCHEMES, TENSORRT, TFLITE
from edgedeploy.calibration.session import Calibration
from edgedeploy.calibration.simulate import simulate

INT4 = IntegerFormat(bits=4, symmetric=True, narrow=True, per_channel=True)


def smooth(count: int, channels: int = 8, size: int = 12, seed: int = 0) -> np.ndarray:
    """Images whose channels and neighbouring pixels are alike, as a trained network's are."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).standard_normal((channels, 3))
    field = random.standard_normal((count, 3, size + 4, size + 4)).cumsum(axis=2).cumsum(axis=3)
    values = np.einsum("ck,nkhw->nchw", mixing, field / field.std())[:, :, 4:, 4:]
    return (values + 0.05 * random.standard_normal(values.shape)).astype(np.float32)


CONVOLUTIONS = {
    "dense": ("pads = [1, 1, 1, 1]", (6, 8, 3, 3)),
    "pointwise": ("strides = [2, 2]", (16, 8, 1, 1)),
    "depthwise": ("group = 8, pads = [0, 1, 2, 1], strides = [2, 1]", (8, 1, 3, 3)),
    "grouped": ("group = 2, dilations = [2, 1], pads = [2, 0, 2, 0]", (4, 4, 3, 2)),
    "long rows": ("pads = [3, 3, 3, 3]", (4, 8, 9, 9)),
}


def convolution(kind: str):
    attributes, shape = CONVOLUTIONS[kind]
    return graph_from_text(
        f"one (float[1, 8, 12, 12] x) => (float[1, c, h, w] y) {{ y = Conv <{attributes}> (x, w0, b0) }}",
        w0=normal(*shape),
        b0=normal(shape[0]),
    )


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolution_is_the_product_of_its_split_weight_and_its_inputs(kind):
    graph, x = convolution(kind), smooth(1)
    weight = normal(*CONVOLUTIONS[kind][1])
    layer = unfolding(graph.model.graph.node[0], weight.shape)
    np.testing.assert_array_equal(layer.join(layer.split(weight)), weight)
    rows = layer.inputs(x, 10_000, 0)
    outputs = np.einsum("npr,por->npo", rows, layer.split(weight))
    outputs = outputs.reshape(len(rows), layer.groups, layer.blocks, -1).sum(axis=2).reshape(len(rows), -1)
    outputs += normal(weight.shape[0])
    expected = simulate(graph, [{"x": x}])["y"][0, 0]
    np.testing.assert_allclose(outputs.T.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


def test_long_rows_are_cut_into_blocks_of_whole_channels():
    layer = unfolding(convolution("long rows").model.graph.node[0], (4, 8, 9, 9))
    assert (layer.blocks, layer.row) == (2, 324)


@pytest.mark.parametrize(
    ("op", "shape"), [("Gemm <transB = 1> (x, w0)", (5, 8)), ("Gemm (x, w0)", (8, 5)), ("MatMul (x, w0)", (8, 5))]
)
def test_matrix_layers_are_products_too(op, shape):
    graph = graph_from_text(f"one (float[3, 8] x) => (float[3, 5] y) {{ y = {op} }}", w0=normal(*shape))
    layer, x = unfolding(graph.model.graph.node[0], shape), normal(3, 8, seed=4)
    weight = normal(*shape)
    np.testing.assert_array_equal(layer.join(layer.split(weight)), weight)
    outputs = np.einsum("npr,por->no", layer.inputs(x, 10, 0), layer.split(weight))
    np.testing.assert_allclose(outputs, simulate(graph, [{"x": x}])["y"][0], rtol=1e-5, atol=1e-5)


def moments_of(kind: str):
    graph, arrays = convolution(kind), {"x": smooth(24)}
    data = ArrayDataset(arrays)
    return graph, collect_moments(graph, data, Calibration(graph, data).table).layers["w0"]


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_no_channels_error_grows_and_the_layers_shrinks(kind, centred):
    _, layer = moments_of(kind)
    weight = normal(*CONVOLUTIONS[kind][1])
    encoding = weight_encoding(weight, INT4, 0)
    chosen = rounded(weight, encoding, layer, centred=centred)
    form = damped(layer.second, layer.mean, centred=centred)
    split = layer.unfolding.split

    def errors(codes: np.ndarray) -> np.ndarray:
        return quadratic(split(encoding.dequantize(codes)).astype(np.float64) - split(weight), form)

    nearest, after = errors(encoding.quantize(weight)), errors(chosen)
    assert (after <= nearest * (1 + 1e-5)).all()
    # Nine taps leave little room; hundreds of weights leave a lot.
    assert after.sum() < (0.95 if kind == "depthwise" else 0.8) * nearest.sum()
    assert chosen.min() >= INT4.qmin and chosen.max() <= INT4.qmax


@pytest.mark.parametrize("kind", ["dense", "pointwise", "grouped"])
def test_unseen_outputs_come_out_nearer(kind):
    graph = convolution(kind)
    data = ArrayDataset({"x": smooth(32)})
    scheme = replace(TENSORRT, weight=INT4)
    unseen = list(ArrayDataset({"x": smooth(16, seed=5)}))
    plain, better = (
        error_db(graph, quantize(graph, Calibration(graph, data, options).read_by("minmax"), scheme), unseen)
        for options in (CalibrationOptions("minmax", round_by_outputs=False), CalibrationOptions("minmax"))
    )
    assert better > plain + 1.0


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_moments_and_model_do_not_depend_on_the_datas_order(scheme):
    graph = two_layers()
    arrays = feeds(graph, 40)
    shuffled = {name: values[np.random.default_rng(3).permutation(40)] for name, values in arrays.items()}
    first, second = (Calibration(graph, ArrayDataset(given)).read_by("minmax") for given in (arrays, shuffled))
    for name, layer in first.moments.layers.items():
        np.testing.assert_array_equal(layer.second, second.moments.layers[name].second)
        np.testing.assert_array_equal(layer.mean, second.moments.layers[name].mean)
    models = [quantize(graph, table, scheme).SerializeToString(deterministic=True) for table in (first, second)]
    assert models[0] == models[1]


def test_it_can_be_left_out():
    graph = two_layers()
    data = ArrayDataset(feeds(graph, 24))
    off = Calibration(graph, data, CalibrationOptions("minmax", round_by_outputs=False))
    on = Calibration(graph, data, CalibrationOptions("minmax"))
    assert off.table_for(TFLITE).moments is None and off.read_by("minmax").moments is None
    assert on.read_by("minmax").moments is not None and on.read_by("minmax", rounded=False).moments is None
    plain, chosen = (Quantized(quantize(graph, given.read_by("minmax"), TFLITE)) for given in (off, on))
    node = plain.node("convolved").input[1]
    assert not np.array_equal(plain.codes(node), chosen.codes(node))
    np.testing.assert_array_equal(plain.scale(node), chosen.scale(node))


def test_a_table_without_data_rounds_to_the_nearest():
    assert Calibration(two_layers(), None).table_for(TFLITE).moments is None


def broken(layer: LayerMoments, value: float) -> LayerMoments:
    return replace(layer, second=np.full_like(layer.second, value), mean=np.full_like(layer.mean, value))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_moments_that_say_nothing_leave_the_nearest_codes(value):
    _, layer = moments_of("dense")
    weight = normal(6, 8, 3, 3)
    encoding = weight_encoding(weight, INT4, 0)
    np.testing.assert_array_equal(rounded(weight, encoding, broken(layer, value)), encoding.quantize(weight))


def test_a_channel_that_is_always_constant_is_no_trouble():
    _, layer = moments_of("depthwise")
    # The first channel always holds 3: all of its error is mean, which the bias takes.
    second, mean = layer.second.copy(), layer.mean.copy()
    second[0], mean[0] = 9.0, 3.0
    weight = normal(8, 1, 3, 3)
    encoding = weight_encoding(weight, INT4, 0)
    chosen = rounded(weight, encoding, replace(layer, second=second, mean=mean))
    np.testing.assert_array_equal(chosen[0], encoding.quantize(weight)[0])


@pytest.mark.parametrize("filler", [0.0, 1e30, 1e-40])
def test_strange_calibration_values_give_a_valid_model(filler):
    graph = two_layers()
    arrays = feeds(graph, 16)
    arrays["image"][:, 0] = filler
    table = Calibration(graph, ArrayDataset(arrays), CalibrationOptions("minmax")).read_by("minmax")
    assert all(np.isfinite(layer.second).all() for layer in table.moments.layers.values())
    Quantized(quantize(graph, table, ONNXRUNTIME_X86))


def test_layers_that_share_a_weight_share_its_codes_and_both_inputs_count():
    graph = cases.shared_weight()
    data = ArrayDataset(feeds(graph, 32))
    table = Calibration(graph, data, CalibrationOptions("minmax")).read_by("minmax")
    shared = max(
        table.moments.layers, key=lambda name: sum(list(node.input).count(name) for node in graph.model.graph.node)
    )
    readers = [node for node in graph.model.graph.node if shared in node.input]
    assert len(readers) == 2
    found = Quantized(quantize(graph, table, QNN_A8W8))
    codes = [name for name in found.constants if name.startswith(f"{shared}_quantized")]
    assert len(codes) == 1


def test_codes_are_computed_once_for_schemes_that_share_a_grid():
    graph = two_layers()
    table = Calibration(graph, ArrayDataset(feeds(graph, 16)), CalibrationOptions("minmax")).read_by("minmax")
    quantize(graph, table, ONNXRUNTIME_X86)
    known = dict(table.moments.codes)
    quantize(graph, table, ONNXRUNTIME_X86)
    assert table.moments.codes.keys() == known.keys() and len(known) >= 3
    assert isinstance(table.moments, InputMoments)
