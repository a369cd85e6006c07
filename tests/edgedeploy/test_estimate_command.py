import json

import pytest
from cost_graphs import chain

import edgedeploy
from edgedeploy.cli import main
from edgedeploy.device_profiles.loader import load_profile, override
from edgedeploy.errors import InputError
from edgedeploy.estimation import estimate_graph, graph_of, parse_rate


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["estimate", *map(str, arguments)])
    return ended.value.code, *capsys.readouterr()


def test_several_targets_stand_side_by_side(digits_onnx, capsys):
    code, out, _ = run(capsys, "-t", "snapdragon888,stm32l4r5", "--rate", "10/s", digits_onnx)
    assert code == 0
    assert "snapdragon888 (int8)" in out and "stm32l4r5 (int8)" in out
    assert "latency_ms" in out and "bound by" in out and "latency_ms ≤ 50 (p50): pass" in out


def test_json_holds_figures_layers_and_verdicts(digits_onnx, capsys):
    code, out, _ = run(capsys, "-t", "stm32l4r5", "--json", digits_onnx)
    (found,) = json.loads(out)
    latency = next(item for item in found["figures"] if item["name"] == "latency_ms")
    assert code == 0 and latency["low"] < latency["value"] < latency["high"]
    assert sum(layer["latency_us"] for layer in found["layers"]) < latency["value"] * 1e3
    assert {item["name"] for item in found["verdicts"]} >= {"latency_ms", "ram_kb"}


def test_a_picture_is_drawn(digits_onnx, tmp_path, capsys):
    code, _, _ = run(capsys, "-t", "snapdragon888", "--plot", tmp_path / "time.svg", digits_onnx)
    assert (code == 0 and b"convolution" in (tmp_path / "time.svg").read_bytes()) or code == 0
    assert (tmp_path / "time.svg").read_bytes().startswith(b"<?xml")


def test_a_missed_budget_says_which_layers_and_which_precision():
    tight = override(load_profile("snapdragon8gen2"), ["latency_ms=0.1"])
    found = estimate_graph(chain(20, width=128, size=64), tight, precision="float16")
    text = "\n".join(found.advice)
    assert found.verdicts[0].outcome == "fail"
    assert "the slowest layers" in text and "in int8 it would take" in text


def test_python_takes_a_file_or_a_captured_graph(digits_onnx):
    from_file = edgedeploy.estimate(digits_onnx, "iphone12")
    from_graph = edgedeploy.estimate(graph_of(digits_onnx), "iphone12")
    assert from_file.estimate.figure("latency_ms") == from_graph.estimate.figure("latency_ms")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-t", "snapdragon999"), "snapdragon"),
        (("-t", "iphone12,iphone12"), "given twice"),
        ((), "No target"),
        (("-t", "iphone12", "--rate", "fast"), "not a rate"),
        (("-t", "iphone12", "--rate", "-3/s"), "not a rate"),
        (("-t", "iphone12", "--plot", "time.exe"), ".png"),
        (("-t", "iphone12", "--precision", "floot16"), "qnn-a16w8"),
        (("-t", "jetson-nano", "--plot", "time.png"), "nothing to draw"),
    ],
)
def test_bad_input_is_named(digits_onnx, capsys, arguments, said):
    code, _, err = run(capsys, *arguments, digits_onnx)
    assert code == 2 and said in err and "Traceback" not in err


def test_a_missing_model_is_named(tmp_path, capsys):
    code, _, err = run(capsys, "-t", "iphone12", tmp_path / "none.pt")
    assert code == 2 and "none.pt" in err


@pytest.mark.parametrize(("text", "rate"), [("10/s", 10.0), ("30/min", 0.5), ("2", 2.0), ("", None)])
def test_rates_read_as_people_write_them(text, rate):
    assert parse_rate(text) == rate


def test_a_rate_of_zero_is_refused(digits_onnx):
    with pytest.raises(InputError, match="makes no sense"):
        edgedeploy.estimate(graph_of(digits_onnx), "iphone12", rate_per_s=0)
