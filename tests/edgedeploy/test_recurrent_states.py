"""LSTM and GRU whose states go in and come out: right in every simulator, step by step and in the loop."""

from __future__ import annotations

import json

import pytest
import streams


@pytest.mark.parametrize("target", ["snapdragon888", "stm32h743"])
@pytest.mark.parametrize(("kind", "layers"), [("lstm", 1), ("lstm", 2), ("gru", 1), ("gru", 2)])
def test_initial_states_are_taken_and_right_in_the_loop(deploy, tmp_path, target, kind, layers):
    code, out, err = deploy("-t", target, "-o", tmp_path / "out", streams.write(tmp_path, kind, layers))
    assert code in (0, 1, 3), out + err
    (bundle,) = (tmp_path / "out").glob(f"{target}*")
    comparisons = json.loads((bundle / "measurements.json").read_text())["runs"][0]["comparisons"]
    loops = {item["output"]: item for item in comparisons if item["output"].endswith("(in the loop)")}
    assert len(loops) == (3 if kind == "lstm" else 2)
    for name, item in loops.items():
        print(target, kind, layers, name, item["sqnr_db"], item["error_to_spread"])
    for item in loops.values():
        assert item["error_to_spread"] < 0.2, item
