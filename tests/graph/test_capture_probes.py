"""Capture compares on inputs that a data set seldom holds, says which found a difference, and forgives rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgedeploy.errors import InputError
from edgedeploy.graph.agreement import compare
from edgedeploy.graph.capture import capture
from edgedeploy.model.load import load_model
from edgedeploy.model.loaded import LoadedModel
from edgedeploy.model.options import LoadOptions


def load(tmp_path, module: nn.Module, *example: torch.Tensor) -> LoadedModel:
    path = tmp_path / "net.pt2"
    with torch.no_grad():
        torch.export.save(torch.export.export(module.eval(), example, strict=False), path)
    return load_model(path, LoadOptions(dynamic_batch=False))


class Of(nn.Module):
    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def _with_constant(graph, old: float, new: float):
    proto = type(graph.model)()
    proto.CopyFrom(graph.model)
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.size == 1 and np.isclose(float(values.reshape(())), old, rtol=1e-3, atol=0):
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(values, new), tensor.name))
            return replace(graph, model=proto)
    raise AssertionError("no such constant")


SAMPLE = {"x": np.random.default_rng(0).normal(3, 0.5, (1, 8)).astype(np.float32)}


@pytest.mark.parametrize(
    ("function", "constant", "wrong", "where"),
    [
        (lambda self, x: torch.log(x * x + 1e-9), 1e-9, 0.0, "an input of zeros"),
        (lambda self, x: torch.clamp(x, max=50.0), 50.0, 60.0, "an input of large values"),
        (lambda self, x: torch.log(x.abs() + 1e-4), 1e-4, 2e-4, "an input of zeros"),
        (lambda self, x: torch.where((x - 1).abs() < 0.5, x * 5.0, x), 5.0, 6.0, "an input of ones"),
    ],
    ids=["epsilon", "bound", "another epsilon", "one"],
)
def test_a_difference_away_from_the_data_is_found_and_named(tmp_path, function, constant, wrong, where):
    model = load(tmp_path, Of(function), torch.randn(1, 8))
    graph = capture(model, [SAMPLE])
    assert graph.agreement.agrees
    assert {"zeros", "ones", "tiny values"} <= set(graph.agreement.probes)
    found = compare(model, _with_constant(graph, constant, wrong), [SAMPLE])
    assert not found.agrees
    assert found.differs_on == where
    assert where in str(found)


def test_a_probe_on_which_the_model_itself_is_no_number_says_nothing(tmp_path):
    model = load(tmp_path, Of(lambda self, x: torch.log(x)), torch.rand(1, 8) + 1)
    agreement = capture(model, [SAMPLE]).agreement
    assert agreement.agrees
    assert "zeros" not in agreement.probes
    assert "ones" in agreement.probes


ROUNDING = {
    "layer norm of a constant": Of(lambda self, x: self.norm(x), norm=nn.LayerNorm(8, eps=1e-12)),
    "sine of large values": Of(lambda self, x: torch.sin(self.fc(x) * 1e3), fc=nn.Linear(8, 8)),
    "difference of large values": Of(lambda self, x: self.fc(x) - self.fc(x + 1e-3) + x * 1e-6, fc=nn.Linear(8, 8)),
    "rounded": Of(lambda self, x: torch.round(self.fc(x) * 7), fc=nn.Linear(8, 8)),
    "class": Of(lambda self, x: self.fc(x).argmax(1), fc=nn.Linear(8, 8, bias=False)),
    "standardised": Of(
        lambda self, x: (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-9), fc=nn.Linear(8, 8)
    ),
}


@pytest.mark.parametrize("name", ROUNDING)
def test_rounding_that_a_probe_magnifies_refuses_no_model(tmp_path, name):
    torch.manual_seed(0)
    model = load(tmp_path, ROUNDING[name], torch.randn(1, 8))
    assert capture(model, [SAMPLE]).agreement.agrees


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.kinds, self.head = nn.Embedding(50, 8), nn.Embedding(1, 8), nn.Linear(8, 3)

    def forward(self, ids, kinds):
        return self.head(torch.relu(self.words(ids) + self.kinds(kinds)).mean(1))


def test_a_table_of_one_row_is_probed_with_ids_that_it_has(tmp_path):
    ids = torch.randint(1, 50, (1, 6))
    model = load(tmp_path, Tokens(), ids, torch.zeros(1, 6, dtype=torch.int64))
    assert model.outputs[0].shape == (1, 3)
    assert capture(model).agreement.agrees, "without any data"
    sample = {"ids": ids.numpy(), "kinds": np.zeros((1, 6), np.int64)}
    agreement = capture(model, [sample], largest={"ids": 49, "kinds": 0}).agreement
    assert set(agreement.probes) == {"zeros", "ones", "large values"}


def test_integers_that_only_the_data_know(tmp_path):
    """Neither 0 nor 1 is a valid value: the user's sample decides."""

    class Six(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(3, 4)

        def forward(self, ids):
            return self.table(ids - 5)

    model = load(tmp_path, Six(), torch.full((1, 4), 6))
    with pytest.raises(InputError, match="does not run"):
        _ = model.outputs
    model.learn({"ids": np.full((1, 4), 6)})
    assert model.outputs[0].shape == (1, 4, 4)
    assert capture(model, [{"ids": np.full((1, 4), 7)}], largest={"ids": 7}).agreement.agrees


def test_a_size_that_depends_on_the_input_is_a_sentence(tmp_path):
    model = load(tmp_path, Of(lambda self, x: x[x > 3.5]), torch.randn(1, 8))
    with pytest.raises(InputError, match="depends on the values"):
        capture(model, [SAMPLE])
