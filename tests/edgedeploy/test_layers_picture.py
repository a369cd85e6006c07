from xml.etree import ElementTree

import pytest

from edgedeploy.bundle.picture import render_layers

ROWS = [
    {"layer": "body.0/Conv", "kind": "convolution", "us": 400.0, "share": 0.8, "bound": "compute"},
    {"layer": "x" * 90 + "/Gemm", "kind": "linear", "us": 100.0, "share": 0.2, "bound": "memory"},
]
SVG = "{http://www.w3.org/2000/svg}"


def test_bars_are_as_long_as_the_layers_take_and_coloured_by_what_bounds_them():
    root = ElementTree.fromstring(render_layers("net on chip", ROWS))
    bars = [item for item in root.iter(f"{SVG}rect") if item.get("height") == "18"]
    lengths = [float(item.get("width")) for item in bars]
    assert lengths[0] == pytest.approx(4 * lengths[1])
    assert len({item.get("fill") for item in bars}) == 2
    texts = [item.text for item in root.iter(f"{SVG}text")]
    assert "net on chip" in texts and "400 µs, 80%, convolution" in texts
    assert any(text.startswith("…") and text.endswith("/Gemm") for text in texts)


@pytest.mark.parametrize(("us", "text"), [(0.42, "0.42 µs"), (999.4, "999 µs"), (123456.0, "123.5 ms")])
def test_times_are_written_out(us, text):
    assert f"{text}, 80%" in render_layers("net", [{**ROWS[0], "us": us}])


def test_the_same_rows_give_the_same_bytes():
    assert render_layers("a", ROWS) == render_layers("a", ROWS)


def test_names_cannot_break_out_of_the_picture():
    hostile = [{**ROWS[0], "layer": '</text><script>alert("x")</script>&\x00'}]
    root = ElementTree.fromstring(render_layers("<b>\x1b", hostile))
    assert not list(root.iter(f"{SVG}script"))


def test_layers_that_take_no_time_are_drawn_too():
    ElementTree.fromstring(render_layers("empty", [{**ROWS[0], "us": 0.0, "share": 0.0}]))
    ElementTree.fromstring(render_layers("nothing", []))
