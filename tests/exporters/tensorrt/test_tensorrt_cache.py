import struct

import numpy as np
import pytest
import zoo
from hypothesis import given
from hypothesis import strategies as st

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.schemes import TENSORRT
from edgedeploy.calibration.session import Calibration
from edgedeploy.errors import InputError
from edgedeploy.exporters.tensorrt.cache import CalibrationCache, header, is_expressible, scale_of
from edgedeploy.exporters.tensorrt.ranges import cache_scales


def independent_parser(content):
    """The format from its description alone: header, then `name: hex`, big-endian float32."""
    lines = content.decode().split("\n")
    entries = {}
    for line in lines[1:]:
        if line:
            at = line.rindex(": ")
            entries[line[:at]] = struct.unpack("!f", bytes.fromhex(line[at + 2 :]))[0]
    return lines[0], entries


@pytest.mark.parametrize(
    ("version", "first"),
    [
        ("8.2.1", "TRT-8201-EntropyCalibration2"),
        ("8.5.2", "TRT-8502-EntropyCalibration2"),
        ("10.3.0", "TRT-100300-EntropyCalibration2"),
        ("10.16.1.11", "TRT-101601-EntropyCalibration2"),
    ],
)
def test_the_header_carries_the_version(version, first):
    assert header(version) == first


def test_the_documented_example():
    assert b"x: 3c010204" in CalibrationCache("10.3.0", {"x": scale_of(-1.0, 0.5)}).to_bytes()


names = st.text(min_size=1, max_size=12).filter(is_expressible)
scales = st.floats(2.0**-100, 2.0**100, width=32)


@given(st.dictionaries(names, scales, max_size=8))
def test_an_independent_parser_reads_the_same(entries):
    content = CalibrationCache("10.3.0", entries).to_bytes()
    assert independent_parser(content) == ("TRT-100300-EntropyCalibration2", entries)
    assert CalibrationCache.from_bytes(content, version="10.3.0", tensors=entries).scales == entries


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\xff\xfe", "not text"),
        (b"hello\n", "first line"),
        (b"TRT-100300-MinMaxCalibration\n", "first line"),
        (b"TRT-100300-EntropyCalibration2\nx: 12\n", "line 2"),
        (b"TRT-100300-EntropyCalibration2\nx 3c010204\n", "line 2"),
    ],
)
def test_what_is_not_a_cache_is_said(content, words):
    with pytest.raises(InputError) as caught:
        CalibrationCache.from_bytes(content)
    assert words in str(caught.value)


def test_another_versions_cache_is_refused():
    content = CalibrationCache("8.5.2", {"x": 1.0}).to_bytes()
    with pytest.raises(InputError, match="another TensorRT"):
        CalibrationCache.from_bytes(content, version="10.3.0")
    assert CalibrationCache.from_bytes(content).version == "8.5.2"


def test_another_models_cache_is_refused():
    content = CalibrationCache("8.5.2", {"x": 1.0}).to_bytes()
    with pytest.raises(InputError, match="another model") as caught:
        CalibrationCache.from_bytes(content, version="8.5.2", tensors=["x", "y"])
    assert "'y'" in str(caught.value)


def test_a_name_that_the_format_cannot_hold_is_refused():
    with pytest.raises(InputError, match="cannot be written"):
        CalibrationCache("8.5.2", {"layer: 1": 1.0}).to_bytes()


def test_the_trained_models_cache_holds_the_entropy_ranges(digits_graph):
    images = zoo.digits_data()[0][:64]
    name = digits_graph.inputs[0].name
    table = Calibration(digits_graph, ArrayDataset({name: images})).table
    cache = CalibrationCache("10.3.0", cache_scales(digits_graph, table, {}))
    _, entries = independent_parser(cache.to_bytes())
    outputs = {output for node in digits_graph.model.graph.node for output in node.output}
    assert set(entries) <= outputs | {name}
    assert {name, digits_graph.outputs[0].name} <= set(entries)
    for tensor, scale in entries.items():
        if tensor in table:
            found = table.range(tensor, TENSORRT.activation, "entropy")
            assert scale == pytest.approx(max(-found.low, found.high) / 127, rel=1e-6)
    assert np.isclose(entries[name] * 127, np.abs(images).max(), rtol=0.05)
