"""Tables on disk: the same bytes for the same table, stale and edited ones refused, a cache that makes a pass free."""

import json
import math

import numpy as np
import pytest
from calibration_graphs import one_op, two_layers

from edgedeploy.calibration import table_file
from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.describe import compare_tables, describe_table
from edgedeploy.calibration.options import CalibrationOptions
from edgedeploy.calibration.scheme import IntegerFormat
from edgedeploy.calibration.session import Calibration, calibrate_to_file
from edgedeploy.calibration.table_file import load_table, save_table
from edgedeploy.errors import InputError

UINT8 = IntegerFormat(signed=False)


def data(seed=0, count=12):
    return ArrayDataset({"image": np.random.default_rng(seed).normal(size=(count, 3, 12, 12)).astype(np.float32)})


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "table.npz"
    return path, calibrate_to_file(two_layers(), data(), path)


def test_what_is_loaded_gives_the_same_ranges(saved, tmp_path):
    path, table = saved
    loaded = load_table(path)
    assert loaded.provenance == table.provenance
    for name in (*table.tensors, "flat", "convolved"):
        for method in ("auto", "minmax", "entropy"):
            assert loaded.range(name, UINT8, method) == table.range(name, UINT8, method)
    np.testing.assert_array_equal(loaded.statistics("second").channels.mean, table.statistics("second").channels.mean)
    save_table(loaded, tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def test_an_edited_table_is_refused(saved):
    path, _ = saved
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["counts"][0] += 1
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="edited or damaged"):
        load_table(path)


def test_an_edited_header_is_refused(saved):
    path, _ = saved
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    text = arrays["header"].tobytes().replace(b'"samples":12', b'"samples":13')
    np.savez(path, **{**arrays, "header": np.frombuffer(text, np.uint8)})
    with pytest.raises(InputError, match="edited or damaged"):
        load_table(path)


@pytest.mark.parametrize("keep", [0, 100, -50])
def test_a_truncated_table_is_refused(saved, keep):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="damaged"):
        load_table(path)


def test_a_table_of_an_earlier_format_is_refused_in_words(saved):
    path, _ = saved
    resign(path, lambda header, arrays: header.pop("format"))
    with pytest.raises(InputError, match="another version of edgedeploy") as caught:
        load_table(path)
    assert caught.value.found == "table format 1, this version reads 2"


def resign(path, edit):
    """Rewrite a table with a header and arrays of one's own and a checksum that fits them."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(arrays.pop("header").tobytes())
    del header["checksum"]
    edit(header, arrays)
    header["checksum"] = table_file._checksum(header, arrays)
    np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)


def _shift_bins(header, arrays):
    header["tensors"][0]["bins"][0] -= 1
    header["tensors"][-1]["bins"][-1] += 2


HOSTILE = {
    "more bins than there are": lambda h, a: h["tensors"][0]["bins"].__setitem__(0, 1 << 40),
    "a negative number of bins": lambda h, a: h["tensors"][0]["bins"].__setitem__(0, -1),
    "half a bin": lambda h, a: h["tensors"][0]["bins"].__setitem__(0, 0.5),
    "bins beyond the end": _shift_bins,
    "bins of no tensor": lambda h, a: h["tensors"].pop(),
    "no folds": lambda h, a: h["tensors"][0].update(bins=[], zeros=[]),
    "folds without zeros": lambda h, a: h["tensors"][0].update(zeros=[]),
    "a count that is infinite": lambda h, a: h["tensors"][0].update(count=float("inf")),
    "a minimum that is text": lambda h, a: h["tensors"][0].update(minimum="low"),
    "channels that are not there": lambda h, a: h["tensors"][0].update(channels=10**9),
    "tensors that are no list": lambda h, a: h.update(tensors=7),
    "a tensor that is no object": lambda h, a: h.update(tensors=[[]]),
    "a range that is its own": lambda h, a: h.update(clipped={"a": ["b"], "b": ["a"]}),
    "a clipped tensor without readers": lambda h, a: h.update(clipped=[1]),
    "unknown options": lambda h, a: h["provenance"]["options"].update(evil=1),
    "impossible options": lambda h, a: h["provenance"]["options"].update(folds=0),
    "versions that are no mapping": lambda h, a: h["provenance"].update(versions=3),
    "a bin off the grid": lambda h, a: a["keys"].__setitem__(3, 1 << 30),
    "a bin below the grid": lambda h, a: a["keys"].__setitem__(0, -1),
    "keys of another type": lambda h, a: a.update(keys=a["keys"].astype(np.float64)),
    "counts in two dimensions": lambda h, a: a.update(counts=a["counts"][None]),
    "an array that is absent": lambda h, a: a.pop("channels"),
    "deeply nested JSON": lambda h, a: h.update(tensors=json.loads("[" * 900 + "]" * 900)),
}


@pytest.mark.parametrize("edit", HOSTILE.values(), ids=HOSTILE)
def test_a_table_that_contradicts_itself_is_refused_though_its_checksum_fits(saved, edit):
    path, _ = saved
    resign(path, edit)
    with pytest.raises(InputError, match="damaged"):
        load_table(path)


def test_nothing_in_a_table_is_unpickled(saved):
    path, _ = saved
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(path, **{**arrays, "keys": np.array([print], dtype=object)})
    with pytest.raises(InputError, match="Object arrays cannot be loaded"):
        load_table(path)


def test_a_member_larger_than_memory_is_refused(saved):
    path, _ = saved
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(path, **arrays)
    content = path.read_bytes()
    shape = f"'shape': ({arrays['keys'].size},)".encode()
    assert content.count(shape) == 2
    path.write_bytes(content.replace(shape + b", }     ", b"'shape': (%d,), }" % 10**14))
    with pytest.raises(InputError, match="damaged"):
        load_table(path)


def test_something_else_is_no_table(tmp_path):
    np.savez(tmp_path / "x.npz", image=np.zeros(3))
    with pytest.raises(InputError, match="not a calibration table"):
        load_table(tmp_path / "x.npz")
    with pytest.raises(InputError, match="no calibration table"):
        load_table(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (Calibration(two_layers(seed=1), data()), "model"),
        (Calibration(two_layers(), data(seed=1)), "data"),
        (Calibration(two_layers(), data(count=11)), "samples 12, now 11"),
        (Calibration(two_layers(), data(), CalibrationOptions(folds=3)), "options"),
    ],
)
def test_a_stale_table_is_refused_and_says_what_changed(saved, other, sentence):
    path, _ = saved
    with pytest.raises(InputError) as caught:
        load_table(path, other.provenance)
    assert sentence in caught.value.found


def test_a_table_made_with_another_runtime_is_refused(saved, monkeypatch):
    path, _ = saved
    monkeypatch.setattr("edgedeploy.calibration.session.versions", lambda: {"onnxruntime": "0"})
    with pytest.raises(InputError, match=r"(?s)stale.*versions"):
        load_table(path, Calibration(two_layers(), data()).provenance)


def test_a_table_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        calibrate_to_file(one_op(), ArrayDataset({"x": np.ones((2, 4), np.float32)}), tmp_path / "file/table.npz")


class TestCache:
    def test_the_second_target_costs_no_pass(self, tmp_path, monkeypatch):
        first = Calibration(two_layers(), data(), cache=tmp_path).table
        monkeypatch.setattr("edgedeploy.calibration.session.collect", None)
        second = Calibration(two_layers(), data(), cache=tmp_path).table
        assert second.range("second", UINT8) == first.range("second", UINT8)

    def test_another_method_reads_the_same_cached_statistics(self, tmp_path, monkeypatch):
        Calibration(two_layers(), data(), cache=tmp_path).table  # noqa: B018
        monkeypatch.setattr("edgedeploy.calibration.session.collect", None)
        table = Calibration(two_layers(), data(), CalibrationOptions(method="minmax"), cache=tmp_path).table
        assert table.range("second", UINT8).low == table.statistics("second").minimum

    def test_other_data_are_collected_anew(self, tmp_path):
        first = Calibration(two_layers(), data(), cache=tmp_path).table
        assert Calibration(two_layers(), data(seed=1), cache=tmp_path).table.tensors != first.tensors
        assert len(list(tmp_path.glob("*.npz"))) == 2

    def test_a_damaged_cache_entry_is_made_again(self, tmp_path):
        table = Calibration(two_layers(), data(), cache=tmp_path).table
        (entry,) = tmp_path.glob("*.npz")
        entry.write_bytes(b"")
        again = Calibration(two_layers(), data(), cache=tmp_path).table
        assert again.range("second", UINT8) == table.range("second", UINT8)
        assert load_table(entry).provenance == table.provenance


def test_a_description_says_what_was_chosen_and_what_is_odd():
    graph = one_op()
    table = Calibration(graph, ArrayDataset({"x": np.full((4, 4), -2, np.float32)})).table
    description = describe_table(table, UINT8)
    assert [row.name for row in description.rows] == ["x", "y"]
    assert (description.rows[0].minimum, description.rows[0].low, description.rows[0].high) == (-2, -2, 0)
    assert "constant" in description.rows[0].note
    assert "always zero" in description.rows[1].note
    assert sum(description.chosen.values()) == 2
    assert set(description.rows[0].sqnr_db) == {"minmax", "percentile", "mse", "entropy"}


def test_tables_are_compared_by_range():
    before = Calibration(two_layers(), data()).table
    assert compare_tables(before, Calibration(two_layers(), data()).table, UINT8) == ()
    after = Calibration(two_layers(), ArrayDataset({"image": np.zeros((2, 3, 12, 12), np.float32)})).table
    differences = compare_tables(before, after, UINT8)
    assert {difference.name for difference in differences} >= {"image", "active", "second"}
    assert [item.change for item in differences] == sorted((item.change for item in differences), reverse=True)
    other = Calibration(one_op(), ArrayDataset({"x": np.ones((2, 4), np.float32)})).table
    assert all(math.isinf(item.change) for item in compare_tables(other, before, UINT8))
