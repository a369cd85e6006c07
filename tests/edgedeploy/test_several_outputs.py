"""A model of two inputs and two labelled outputs, one of them judged by labels of its own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch


class TwoHeads(torch.nn.Module):
    """Scores and a regression from an image-like and a vector input."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(8, 4), torch.nn.Linear(6, 3)

    def forward(self, left, right):
        return {"kind": self.first(left), "colour": self.second(torch.cat([left[:, :3], right], 1))}


@pytest.fixture
def two_heads(tmp_path):
    net = TwoHeads().eval()
    rng = np.random.default_rng(1)
    data = {"left": rng.normal(size=(80, 8)).astype(np.float32), "right": rng.normal(size=(80, 3)).astype(np.float32)}
    with torch.no_grad():
        outputs = net(**{name: torch.from_numpy(value) for name, value in data.items()})
    labels = {f"labels:{name}": value.argmax(1).numpy() for name, value in outputs.items()}
    labels["labels:colour"] = (labels["labels:colour"] + 1) % 3
    program = torch.export.export(net, (torch.zeros(1, 8), torch.zeros(1, 3)))
    with (tmp_path / "model.pt").open("wb") as file:
        torch.export.save(program, file)
    np.savez(tmp_path / "model.calib.npz", **{name: value[:30] for name, value in data.items()})
    np.savez(tmp_path / "model.eval.npz", **{name: value[30:] for name, value in {**data, **labels}.items()})
    return tmp_path / "model.pt"


def test_each_output_is_judged_by_its_own_labels(deploy, two_heads, tmp_path):
    code, _, error = deploy("-t", "host", "-q", "-o", tmp_path / "out", two_heads)
    assert code in (0, 1), error
    [bundle] = (tmp_path / "out").iterdir()
    [run] = json.loads((bundle / "measurements.json").read_text())["runs"]
    reference = {item["output"]: item["reference_accuracy"] for item in run["comparisons"]}
    assert reference == {"kind": 1.0, "colour": 0.0}


def test_labels_of_an_output_that_is_not_there(deploy, two_heads, tmp_path):
    with np.load(two_heads.with_name("model.eval.npz")) as archive:
        data = dict(archive)
    data["labels:shape"] = data.pop("labels:kind")
    np.savez(two_heads.with_name("model.eval.npz"), **data)
    code, _, error = deploy("-t", "host", "-q", "-o", tmp_path / "out", two_heads)
    assert code == 2
    assert "'shape'" in error and "colour" in error
    assert not (tmp_path / "out").exists()
