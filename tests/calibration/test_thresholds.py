"""Threshold methods against brute force on the raw values, and the selection among them."""

import itertools
import math

import numpy as np
import pytest
from calibration_graphs import graph_from_text, one_op

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.histogram import HistogramBuilder
from edgedeploy.calibration.methods.entropy import entropy
from edgedeploy.calibration.methods.method import Distribution, methods
from edgedeploy.calibration.methods.minmax import minmax
from edgedeploy.calibration.methods.mse import mse
from edgedeploy.calibration.methods.percentile import percentile
from edgedeploy.calibration.noise import noise, sqnr_db
from edgedeploy.calibration.options import CalibrationOptions
from edgedeploy.calibration.ranges import Range, affine, safe_range
from edgedeploy.calibration.scheme import IntegerFormat
from edgedeploy.calibration.session import Calibration
from edgedeploy.errors import InputError

OPTIONS = CalibrationOptions()
FORMATS = {
    "uint8": IntegerFormat(signed=False),
    "int8": IntegerFormat(),
    "int8 symmetric": IntegerFormat(symmetric=True),
    "int8 symmetric narrow": IntegerFormat(symmetric=True, narrow=True),
    "uint8 symmetric": IntegerFormat(signed=False, symmetric=True),
    "int4": IntegerFormat(bits=4),
    "uint16": IntegerFormat(bits=16, signed=False),
}


def samples(kind, count=40_000, seed=0):
    rng = np.random.default_rng(seed)
    values = {
        "normal": lambda: rng.normal(0.3, 1, count),
        "relu": lambda: np.maximum(rng.normal(0, 2, count), 0),
        "heavy": lambda: rng.standard_t(4, count),
        "outliers": lambda: np.where(rng.random(count) < 1e-3, 40.0, 1.0) * rng.normal(0, 1, count),
        "skewed": lambda: rng.lognormal(0, 1, count) - 0.5,
        "negative": lambda: -np.abs(rng.normal(0, 1, count)) - 0.01,
    }[kind]()
    return values.astype(np.float32)


KINDS = ("normal", "relu", "heavy", "outliers", "skewed", "negative")


def distribution(values):
    builder = HistogramBuilder()
    builder.add(values)
    low, high = float(values.min()), float(values.max())
    return Distribution(builder.build(low, high), safe_range(low, high))


def rounded(values, found, fmt):
    """What QuantizeLinear and DequantizeLinear make of values, in double precision."""
    grid = affine(found, fmt)
    codes = np.clip(np.rint(values.astype(np.float64) / grid.scale) + grid.zero_point, grid.qmin, grid.qmax)
    return (codes - grid.zero_point) * grid.scale


def measured_sqnr(values, found, fmt):
    error = np.mean((rounded(values, found, fmt) - values.astype(np.float64)) ** 2)
    return 10 * math.log10(np.mean(values.astype(np.float64) ** 2) / error)


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
def test_every_grid_has_zero_on_a_code_and_covers_the_range(fmt):
    for low, high in ((-1.0, 3.0), (0.0, 5.0), (-2.0, 0.0), (-1e-3, 1e4)):
        grid = affine(Range(low, high), fmt)
        assert grid.qmin <= grid.zero_point <= grid.qmax
        assert grid.low <= low + grid.scale / 2 or not fmt.signed
        assert grid.high >= high - grid.scale
        if fmt.symmetric:
            assert grid.zero_point in (0, 2 ** (fmt.bits - 1))


@pytest.mark.parametrize("fmt", [FORMATS["uint8"], FORMATS["int8 symmetric"], FORMATS["uint16"]], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_noise_from_the_histogram_is_the_measured_noise(kind, fmt):
    values = samples(kind)
    found = distribution(values)
    for share in (1.0, 0.5, 0.1):
        candidate = Range(found.bounds.low * share, found.bounds.high * share)
        assert sqnr_db(found.histogram, candidate, fmt) == pytest.approx(measured_sqnr(values, candidate, fmt), abs=0.1)


def test_noise_of_nothing_is_nothing():
    empty = HistogramBuilder().build()
    assert noise(empty, [affine(Range(0, 1), FORMATS["uint8"])]).tolist() == [0]
    assert sqnr_db(empty, Range(0, 1), FORMATS["uint8"]) == math.inf


@pytest.mark.parametrize("name", methods())
@pytest.mark.parametrize("kind", KINDS)
def test_every_method_stays_within_the_bounds(kind, name):
    found = distribution(samples(kind))
    for fmt in FORMATS.values():
        values = methods()[name](found, fmt, OPTIONS)
        assert found.bounds.low <= values.low <= 0 <= values.high <= found.bounds.high
        assert values.magnitude > 0


def test_minmax_is_exact():
    values = samples("normal")
    assert minmax(distribution(values), FORMATS["uint8"], OPTIONS) == Range(float(values.min()), float(values.max()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", [99.0, 99.9, 99.99])
def test_percentile_against_numpy(kind, wanted):
    values = samples(kind)
    found = percentile(distribution(values), FORMATS["uint8"], CalibrationOptions(percentile=wanted))
    expected = np.percentile(np.abs(values), wanted, method="inverted_cdf")
    assert found.magnitude == pytest.approx(expected, rel=1 / 256)


@pytest.mark.parametrize("fmt", [FORMATS[name] for name in ("uint8", "int8 symmetric", "int4")], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_mse_is_as_good_as_brute_force(kind, fmt):
    values = samples(kind)
    found = distribution(values)
    low, high = found.bounds.low, found.bounds.high
    shares = 2.0 ** (-np.arange(0, 80) / 8)
    best = max(measured_sqnr(values, Range(max(low, -high * s, -1e9), high * s), fmt) for s in shares)
    best = max(best, *(measured_sqnr(values, Range(low * s, high * s), fmt) for s in shares))
    magnitude = found.bounds.magnitude
    best = max(
        best,
        *(measured_sqnr(values, Range(max(low, -magnitude * s), min(high, magnitude * s)), fmt) for s in shares),
    )
    assert measured_sqnr(values, mse(found, fmt, OPTIONS), fmt) > best - 0.1


def kl_by_definition(values, threshold, low, high, bins, codes):
    """KL(P || Q) of one symmetric window, written out as Migacz's slides have it."""
    values = values[values != 0]
    counts, _ = np.histogram(values, bins, (low, high))
    width = (high - low) / bins
    zero = round(-low / width)
    first, last = max(zero - threshold, 0), min(zero + threshold, bins)
    p = counts[first:last].astype(float)
    inner = p.copy()
    p[0] += counts[:first].sum()
    p[-1] += counts[last:].sum()
    borders = np.rint(first + (last - first) * np.arange(codes + 1) / codes).astype(int) - first
    q = np.zeros_like(p)
    for start, end in itertools.pairwise(borders):
        filled = p[start:end] > 0
        if filled.any():
            q[start:end][filled] = inner[start:end].sum() / filled.sum()
    p, q = p / p.sum(), q / q.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * np.log(p / q), 0).sum()


@pytest.mark.parametrize("kind", ["normal", "relu", "heavy", "outliers", "skewed"])
@pytest.mark.parametrize("name", ["uint8", "int8 symmetric narrow"])
def test_entropy_finds_a_window_as_good_as_the_definition_does(kind, name):
    fmt, values = FORMATS[name], samples(kind)
    bounds = distribution(values).bounds
    codes = fmt.qmax - fmt.qmin + 1
    bins = 16 * codes
    low, high = (-bounds.magnitude, bounds.magnitude) if fmt.symmetric else (bounds.low, bounds.high)
    width = (high - low) / bins
    zero = round(-low / width)
    found = entropy(distribution(values), fmt, OPTIONS)
    reach = max(zero, bins - zero)
    candidates = range(codes // 2, reach + 1, 64)
    divergences = [kl_by_definition(values, c, low, high, bins, codes) for c in candidates if c >= codes]
    mine = kl_by_definition(values, round(found.magnitude / width), low, high, bins, codes)
    assert mine <= min(divergences) * 1.1 + 1e-3


def test_entropy_searches_and_does_not_merely_return_the_extremes():
    found = distribution(samples("outliers"))
    assert entropy(found, FORMATS["uint8"], OPTIONS).magnitude < 0.5 * found.bounds.magnitude
    assert entropy(found, FORMATS["uint16"], OPTIONS) == found.bounds


class TestAuto:
    def calibration(self, kind, options=OPTIONS, seed=0):
        graph = graph_from_text("sum (float[1, 2500] x) => (float[1, 2500] y) { y = Add(x, x) }")
        return Calibration(graph, ArrayDataset({"x": samples(kind, 200_000, seed).reshape(80, 2500)}), options)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("name", ["uint8", "int8 symmetric"])
    def test_within_half_a_decibel_of_the_best_method_on_unseen_data(self, kind, name):
        """On average over data sets: with a heavy tail, each has other rare values, and they carry the error."""
        unseen = [distribution(samples(kind, 200_000, seed)).histogram for seed in range(7, 13)]
        shortfalls = []
        for seed in range(4):
            table, fmt = self.calibration(kind, seed=seed).table, FORMATS[name]
            each = [table.range("x", fmt, method) for method in methods()]
            for values in unseen:
                best = max(sqnr_db(values, found, fmt) for found in each)
                shortfalls.append(best - sqnr_db(values, table.range("x", fmt), fmt))
        assert np.mean(shortfalls) < 0.5

    def test_it_reports_what_each_method_gives(self):
        choice = self.calibration("outliers").table.choice("x", FORMATS["uint8"])
        assert set(choice.sqnr_db) == set(methods())
        assert choice.sqnr_db[choice.method] == max(choice.sqnr_db.values())
        assert choice.sqnr_db["minmax"] < choice.sqnr_db[choice.method] - 1

    def test_a_named_method_in_the_options_is_used(self):
        table = self.calibration("outliers", CalibrationOptions(method="minmax")).table
        assert table.range("x", FORMATS["uint8"]) == table.range("x", FORMATS["uint8"], "minmax")

    def test_one_sample_is_enough(self):
        graph, data = one_op(), ArrayDataset({"x": np.array([[-1, 0, 1, 2]], np.float32)})
        assert Calibration(graph, data).table.range("x", FORMATS["uint8"]).high == pytest.approx(2, rel=0.1)

    @pytest.mark.parametrize("options", [{"method": "kl"}, {"percentile": 0.0}, {"percentile": 101.0}, {"folds": 0}])
    def test_options_that_make_no_sense(self, options):
        with pytest.raises(InputError):
            CalibrationOptions(**options)

    def test_an_unknown_method_is_named_with_the_choices(self):
        with pytest.raises(InputError, match=r"(?s)'kl'.*minmax"):
            self.calibration("normal").table.range("x", FORMATS["uint8"], "kl")
