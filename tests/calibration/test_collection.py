"""The collector: exact statistics that neither order nor batching can change, and clear words for odd tensors."""

import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnxruntime
import pytest
from calibration_graphs import graph_from_text, one_op, two_layers
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedeploy.calibration.dataset import ArrayDataset, Dataset
from edgedeploy.calibration.describe import odd
from edgedeploy.calibration.exact_sum import ExactSum
from edgedeploy.calibration.histogram import Histogram, HistogramBuilder, merged
from edgedeploy.calibration.observed import observed_tensors
from edgedeploy.calibration.options import CalibrationOptions
from edgedeploy.calibration.readers.generator import GeneratorReader
from edgedeploy.calibration.scheme import IntegerFormat
from edgedeploy.calibration.session import Calibration
from edgedeploy.calibration.table_file import save_table
from edgedeploy.errors import InputError

UINT8 = IntegerFormat(signed=False)
INT8 = IntegerFormat(symmetric=True)


def photos_like(count=24, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 3, 12, 12)).astype(np.float32)


def table_of(graph, array, name="image", **options):
    return Calibration(graph, ArrayDataset({name: array}), CalibrationOptions(**options)).table


class TestObserved:
    def test_only_tensors_that_can_be_quantized(self):
        observed = observed_tensors(two_layers())
        assert observed.tensors == ("image", "active", "second", "added", "pooled", "scores")
        assert observed.aliases == {"flat": "pooled"}
        assert observed.clipped == {"convolved": ("active",)}
        assert observed.channel_axis == dict.fromkeys(observed.tensors, 1)

    def test_a_tensor_between_an_op_and_its_activation_has_the_range_of_what_passes(self):
        table = table_of(two_layers(), photos_like(2))
        assert "convolved" not in table
        assert table.range("convolved", UINT8) == table.range("active", UINT8)
        with pytest.raises(InputError, match="active"):
            table.statistics("convolved")

    def test_integer_tensors_are_not_observed(self):
        graph = graph_from_text(
            "ids (int64[1, 4] ids) => (float[1, 4, 3] y) { y = Gather(table, ids) }",
            table=np.eye(9, 3, dtype=np.float32),
        )
        table = Calibration(graph, ArrayDataset({"ids": np.arange(8).reshape(2, 4)})).table
        assert list(table.tensors) == ["y"]
        assert table.statistics("y").channels.axis == 2


class TestStatistics:
    def test_against_numpy(self):
        graph, array = two_layers(), photos_like()
        table = table_of(graph, array)
        statistics = table.statistics("second")
        values = activations(graph, array, "second").astype(np.float64)
        assert statistics.count == values.size
        assert (statistics.minimum, statistics.maximum) == (values.min(), values.max())
        assert statistics.mean == pytest.approx(values.mean(), rel=1e-5)
        assert statistics.second_moment == pytest.approx((values**2).mean(), rel=1e-5)
        np.testing.assert_allclose(statistics.channels.mean, values.mean(axis=(0, 2, 3)), rtol=1e-4)
        np.testing.assert_allclose(statistics.channels.second_moment, (values**2).mean(axis=(0, 2, 3)), rtol=1e-4)
        np.testing.assert_array_equal(statistics.channels.maximum, values.max(axis=(0, 2, 3)))
        assert statistics.histogram.total == values.size
        assert statistics.histogram.energy == pytest.approx((values**2).mean(), rel=1e-4)

    def test_samples_are_dealt_out_to_folds(self):
        statistics = table_of(two_layers(), photos_like(16), folds=4).statistics("image")
        assert [fold.total * 4 for fold in statistics.folds] == [statistics.count] * 4
        assert statistics.without(1).total == 3 * statistics.folds[1].total
        equal = table_of(two_layers(), np.concatenate([photos_like(1)] * 3)).statistics("image")
        assert [fold.total for fold in equal.folds] == [equal.count]

    def test_an_alias_gives_its_sources_statistics(self):
        table = table_of(two_layers(), photos_like(2))
        assert table.statistics("flat") is table.statistics("pooled")

    def test_a_tensor_of_another_graph_is_named(self):
        with pytest.raises(InputError, match="'nowhere'"):
            table_of(one_op(), np.ones((2, 4), np.float32), "x").range("nowhere", UINT8)


class TestIdentity:
    def test_shuffled_data_give_the_same_table_bit_for_bit(self, tmp_path):
        graph, array = two_layers(), photos_like()
        for seed in range(3):
            order = np.random.default_rng(seed).permutation(len(array))
            save_table(table_of(graph, array[order]), tmp_path / f"{seed}.npz")
        contents = {path.read_bytes() for path in tmp_path.glob("*.npz")}
        assert len(contents) == 1

    def test_another_batch_size_gives_the_same_table_bit_for_bit(self, tmp_path):
        text = """dynamic (float[batch, 3, 12, 12] image) => (float[batch, 8, 12, 12] y) {
            y = Conv <pads = [1, 1, 1, 1]> (image, w)
        }"""
        weights = np.random.default_rng(1).normal(size=(8, 3, 3, 3)).astype(np.float32)
        graph, array = graph_from_text(text, w=weights), photos_like()
        for size in (1, 5, 24):
            batches = [{"image": array[start : start + size]} for start in range(0, 24, size)]
            reader = GeneratorReader(lambda batches=batches: batches, graph.inputs, "batches")
            save_table(Calibration(graph, Dataset(reader, tuple(range(24)))).table, tmp_path / f"{size}.npz")
        assert len({path.read_bytes() for path in tmp_path.glob("*.npz")}) == 1

    @pytest.mark.parametrize("odd", [1.0, 3e17, 1e30])
    def test_how_many_samples_are_looked_at_together_changes_no_bit(self, tmp_path, monkeypatch, odd):
        array = photos_like()
        array[5, 1, 2, 3] = odd
        for size in (1, 30_000, 1 << 23):
            monkeypatch.setattr("edgedeploy.calibration.collector._GATHERED_BYTES", size)
            save_table(table_of(two_layers(), array, folds=2), tmp_path / f"{size}.npz")
        assert len({path.read_bytes() for path in tmp_path.glob("*.npz")}) == 1

    def test_a_model_that_goes_through_a_file_gives_the_same_table(self, tmp_path, monkeypatch):
        for size in (0, 1 << 23):
            monkeypatch.setattr("edgedeploy.calibration.collector._FILED_BYTES", size)
            save_table(table_of(two_layers(), photos_like()), tmp_path / f"{size}.npz")
        assert len({path.read_bytes() for path in tmp_path.glob("*.npz")}) == 1

    def test_samples_of_different_lengths(self):
        graph = graph_from_text("lengths (float[1, n, 3] x) => (float[1, n, 3] y) { y = Relu(x) }")
        rows = [{"x": np.full((1, length, 3), length, np.float32)} for length in (2, 3, 3, 5)]
        data = Dataset(GeneratorReader(lambda: rows, graph.inputs, "rows"), (0, 1, 2, 3))
        statistics = Calibration(graph, data, CalibrationOptions(folds=1)).table.statistics("y")
        assert (statistics.count, statistics.minimum, statistics.maximum) == (39, 2, 5)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.floats(-(2.0**80), 2.0**80, allow_subnormal=False), min_size=1, max_size=40), st.randoms())
    def test_exact_sums_do_not_depend_on_order(self, values, random):
        shuffled = list(values)
        random.shuffle(shuffled)
        sums = []
        for order in (values, shuffled):
            total = ExactSum(1)
            for value in order:
                total.add(np.array([value]))
            sums.append(total.value()[0])
        together = ExactSum(1)
        together.add(np.array(values)[:, None])
        assert sums[0] == sums[1] == together.value()[0]
        magnitude = max(map(abs, values))
        assert sums[0] == pytest.approx(sum(values), rel=1e-9, abs=max(magnitude * 1e-12, 1e-30))

    def test_sums_survive_many_additions(self):
        total = ExactSum(1)
        for _ in range(40_000):
            total.add(np.array([-0.1]))
        assert total.value()[0] == pytest.approx(-4000, rel=1e-12)


class TestHistogram:
    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=300), st.integers(0, 300))
    def test_bins_hold_their_values_and_parts_add_up(self, values, cut):
        array = np.array(values, np.float32)
        builder, parts = HistogramBuilder(), HistogramBuilder()
        builder.add(array)
        parts.add(array[:cut])
        parts.add(array[cut:])
        whole, sum_of_parts = builder.build(), parts.build()
        np.testing.assert_array_equal(whole.keys, sum_of_parts.keys)
        np.testing.assert_array_equal(whole.counts, sum_of_parts.counts)
        assert whole.total + builder.extreme == len(values)
        normal = array[(np.abs(array) >= np.finfo(np.float32).tiny) & (np.abs(array) < 2.0**96)]
        low, high = np.sort([whole.inner, whole.outer], axis=0)
        for value in normal:
            inside = (np.abs(value) >= np.abs(whole.inner)) & (np.abs(value) < np.abs(whole.outer)) & (low <= value)
            assert whole.counts[inside & (value <= high)].sum() > 0
        assert (np.abs(whole.outer - whole.inner) <= np.abs(whole.inner) / 256).all()

    def test_few_and_many_values_are_counted_alike(self):
        values = np.random.default_rng(0).normal(size=40_000).astype(np.float32)
        at_once, in_parts = HistogramBuilder(), HistogramBuilder()
        at_once.add(values)
        for part in np.split(values, 8):
            in_parts.add(part)
        np.testing.assert_array_equal(at_once.build().counts, in_parts.build().counts)

    def test_merging(self):
        first = Histogram(np.array([3, 9], np.int32), np.array([1, 2]), 5)
        second = Histogram(np.array([9, 11], np.int32), np.array([10, 20]), 1)
        both = merged([first, second])
        assert (both.keys.tolist(), both.counts.tolist(), both.zeros) == ([3, 9, 11], [1, 12, 20], 6)
        rest = both.without(first)
        assert (rest.keys.tolist(), rest.counts.tolist(), rest.zeros) == ([9, 11], [10, 20], 1)
        assert both.coarse.keys.tolist() == [0, 8]
        assert both.coarse.counts.tolist() == [1, 32]


class TestOddTensors:
    def statistics(self, *rows):
        return table_of(one_op(), np.array(rows, np.float32), "x").statistics("x")

    def range(self, *rows, fmt=UINT8):
        return table_of(one_op(), np.array(rows, np.float32), "x").range("x", fmt)

    def test_all_zero(self):
        assert "always zero" in odd(self.statistics([0, 0, 0, 0], [0, 0, 0, 0]))
        assert (self.range([0, 0, 0, 0]).low, self.range([0, 0, 0, 0]).high) == (0.0, 1.0)

    @pytest.mark.parametrize("fmt", [UINT8, INT8])
    @pytest.mark.parametrize("value", [3.5, -3.5])
    def test_constant(self, value, fmt):
        assert "constant" in odd(self.statistics([value] * 4, [value] * 4))
        found = self.range([value] * 4, fmt=fmt)
        assert (found.low, found.high) == (min(value, 0), max(value, 0))

    def test_denormal(self):
        assert self.range([1e-40, -1e-42, 0, 1e-41]).high == 1.0
        assert "always zero" in odd(self.statistics([1e-40, -1e-42, 0, 1e-41]))

    def test_1e30_does_not_take_the_range(self):
        statistics = self.statistics([1e30, 1, 2, -1], [0.5, 1, 2, -3e38])
        assert statistics.extreme == 2
        assert "2 values are infinite or beyond 2^96" in odd(statistics)
        assert (statistics.minimum, statistics.maximum) == (-1.0, 2.0)
        assert self.range([1e30, 1, 2, -1], [0.5, 1, 2, 1]).high == 2.0

    def test_nothing_but_1e30(self):
        assert "leave it float" in odd(self.statistics([1e30] * 4))
        assert self.range([1e30] * 4).high == 1.0

    def test_large_values_below_the_limit_keep_their_range(self):
        assert self.range([1e25, -1e25, 5e24, 1e20]).high == pytest.approx(1e25, rel=1e-6)

    def test_nan_in_one_sample_names_the_tensor_and_the_sample(self):
        graph = graph_from_text("root (float[1, 4] x) => (float[1, 4] z) { y = Sqrt(x)\n z = Relu(y) }")
        data = np.ones((5, 4), np.float32)
        data[3, 1] = -1
        with pytest.raises(InputError, match=r"(?s)Tensor 'z' is NaN.*row 3|Tensor 'y' is NaN.*row 3"):
            table_of(graph, data, "x")

    def test_a_branch_that_no_sample_reaches(self):
        graph = graph_from_text(
            "gate (float[1, 4] x) => (float[1, 4] z) { over = Sub(x, limit)\n on = Relu(over)\n z = Mul(on, x) }",
            limit=np.array(5, np.float32),
        )
        table = table_of(graph, np.random.default_rng(0).uniform(size=(6, 4)).astype(np.float32), "x")
        assert "always zero on this data: add samples that reach it" in odd(table.statistics("on"))
        assert table.range("on", UINT8).high == 1.0

    def test_a_model_of_one_op(self):
        table = table_of(one_op(), np.array([[-1, 0, 1, 3]], np.float32), "x", method="minmax")
        assert list(table.tensors) == ["x", "y"]
        assert (table.range("x", UINT8).low, table.range("y", UINT8).low, table.range("y", UINT8).high) == (-1, 0, 3)

    def test_a_sample_that_the_model_cannot_run(self):
        graph = graph_from_text(
            "ids (int64[1, 2] ids) => (float[1, 2, 3] y) { y = Gather(table, ids) }",
            table=np.eye(5, 3, dtype=np.float32),
        )
        with pytest.raises(InputError, match="row 1"):
            Calibration(graph, ArrayDataset({"ids": np.array([[0, 1], [2, 99]])})).table  # noqa: B018


def activations(graph, array, name):
    """All samples' values of one tensor, by a plain onnxruntime session."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    model.graph.output.append(next(value for value in model.graph.value_info if value.name == name))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([name], {"image": row[None]})[0] for row in array])


def test_calibration_needs_no_torch():
    script = (
        "import sys, numpy as np; from calibration_graphs import one_op\n"
        "from edgedeploy.calibration.dataset import ArrayDataset\n"
        "from edgedeploy.calibration.session import Calibration\n"
        "print(len(Calibration(one_op(), ArrayDataset({'x': np.ones((2, 4), np.float32)})).table.tensors))\n"
        "print('torch' in sys.modules)"
    )
    support = str(Path(__file__).parents[1] / "support")
    environment = {**os.environ, "PYTHONPATH": support}
    result = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, env=environment)
    assert result.stdout.split() == ["2", "False"], result.stderr


def test_progress_is_told_of_every_sample():
    class Spy:
        seen: ClassVar[list] = []

        def track(self, items, *, what, total=None):
            for count, item in enumerate(items):
                self.seen.append((what, count + 1, total))
                yield item

        def note(self, text):
            raise AssertionError(text)

    Calibration(one_op(), ArrayDataset({"x": np.eye(3, 4, dtype=np.float32)}), progress=Spy()).table  # noqa: B018
    assert Spy.seen[-1] == ("Calibrating", 3, 3)
    assert ("Checking data", 3, 3) in Spy.seen
