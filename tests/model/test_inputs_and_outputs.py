"""Named inputs, nested outputs, batches: what a loaded model promises about its boundary."""

from __future__ import annotations

import doctored
import numpy as np
import pytest
import torch
import zoo
from torch import nn

from edgedeploy.errors import InputError
from edgedeploy.model.load import load_model
from edgedeploy.model.options import LoadOptions, parse_input
from edgedeploy.tensors import TensorSpec


class TwoInputs(nn.Module):
    """Token ids and a scale; a nested result with an input in it and one tensor twice."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, ids: torch.Tensor, scale: torch.Tensor):
        values = self.table(ids) * scale[:, None]
        return {"values": values, "parts": (values.sum(1), [scale, values]), "ids": ids}


def two_inputs() -> nn.Module:
    torch.manual_seed(1)
    return TwoInputs()


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("x:1x3x224x224:float32", TensorSpec("x", (1, 3, 224, 224), "float32")),
        ("ids:1x128:int64", TensorSpec("ids", (1, 128), "int64")),
        ("x:1x8", TensorSpec("x", (1, 8), "float32")),
        ("x:batchx8", TensorSpec("x", ("batch", 8), "float32")),
        ("rate::int64", TensorSpec("rate", (), "int64")),
    ],
)
def test_parse_input(text, spec):
    assert parse_input(text) == spec


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "",
        ":1x3",
        "x:1x3:float99",
        "x:1x0x3",
        "x:1x-3",
        "x:1xbatch",
        "x:axb:float32",
        "x:1:2:3",
        "x:1x3.5",
        "x:1x 3x",
    ],
)
def test_parse_input_refuses(text):
    with pytest.raises(InputError) as caught:
        parse_input(text)
    assert caught.value.remedy


def load(tmp_path, *inputs: str, **options):
    path = tmp_path / "model.pt"
    torch.save(two_inputs().state_dict(), path)
    factory = f"{__name__}:two_inputs"
    return load_model(path, LoadOptions(factory=factory, inputs=tuple(map(parse_input, inputs)), **options))


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or pytest.importorskip(__name__))


def test_nested_outputs_are_flattened_and_named(tmp_path):
    model = load(tmp_path, "ids:1x5:int64", "scale:1x1:float32")
    assert [str(spec) for spec in model.outputs] == [
        "values:1x5x4:float32",
        "parts_0:1x4:float32",
        "parts_1_0:1x1:float32",
        "parts_1_1:1x5x4:float32",
        "ids_out:1x5:int64",
    ]
    sample = {"ids": np.array([[1, 2, 3, 4, 9]]), "scale": np.array([[2.0]], np.float32)}
    outputs = model.reference(sample)
    np.testing.assert_array_equal(outputs["ids_out"], sample["ids"])
    np.testing.assert_allclose(outputs["parts_0"], outputs["values"].sum(1), rtol=1e-6)


def test_inputs_by_name_in_any_order(tmp_path):
    model = load(tmp_path, "scale:1x1:float32", "ids:1x5:int64")
    assert [spec.name for spec in model.inputs] == ["scale", "ids"]


def test_inputs_of_other_names_go_by_position(tmp_path):
    model = load(tmp_path, "tokens:1x5:int64", "factor:1x1:float32")
    assert [spec.name for spec in model.inputs] == ["tokens", "factor"]


def test_token_ids_declared_as_float(tmp_path):
    with pytest.raises(InputError) as caught:
        load(tmp_path, "ids:1x5:float32", "scale:1x1:float32")
    assert "ids:1x5:float32" in caught.value.found
    assert "int64" in caught.value.remedy


def test_too_few_inputs(tmp_path):
    with pytest.raises(InputError, match="does not run"):
        load(tmp_path, "ids:1x5:int64")


def test_program_of_either_batch(tmp_path):
    model = load(tmp_path, "ids:1x5:int64", "scale:1x1:float32")
    fixed, open_ = model.program(dynamic_batch=False), model.program(dynamic_batch=True)
    assert fixed is model.program(), "made once"
    rows = {"ids": torch.arange(15).reshape(3, 5) % 10, "scale": torch.ones(3, 1)}
    assert open_.module()(**rows)["values"].shape == (3, 5, 4)
    assert fixed.module()(**{name: value[:1] for name, value in rows.items()})["values"].shape == (1, 5, 4)


class FixedInside(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(1, 12).cumsum(1)


def fixed_inside() -> nn.Module:
    module = FixedInside()
    module.unused = nn.Parameter(torch.zeros(1))
    return module


def test_a_batch_that_cannot_be_dynamic_is_fixed_and_noted(tmp_path):
    torch.save(fixed_inside().state_dict(), tmp_path / "m.pt")
    options = LoadOptions(factory=f"{__name__}:fixed_inside", inputs=(parse_input("x:1x3x4"),), dynamic_batch=True)
    model = load_model(tmp_path / "m.pt", options)
    assert model.program() is model.program(dynamic_batch=False)
    assert any("fixed to 1" in note for note in model.notes)


def test_pt2_carries_its_shapes_and_needs_nothing(tmp_path):
    model = load_model(doctored.save_pt2(tmp_path / "model.pt"))
    assert model.kind == "exported_program"
    assert [str(spec) for spec in model.inputs] == ["input:1x1x8x8:float32"]
    assert [str(spec) for spec in model.outputs] == ["output:1x4x6x6:float32"]


@pytest.mark.parametrize(("dynamic", "batch"), [(True, 2), (False, 5), (False, 1)])
@pytest.mark.parametrize("wanted", [True, False])
def test_pt2_of_any_batch_gives_either_program(tmp_path, dynamic, batch, wanted):
    model = load_model(doctored.save_pt2(tmp_path / "model.pt2", dynamic, batch))
    image = torch.randn(1, 1, 8, 8)
    expected = doctored.small_net()(image).detach()
    np.testing.assert_allclose(model.reference({"input": image.numpy()})["output"], expected, rtol=1e-5, atol=1e-6)
    program = model.program(dynamic_batch=wanted)
    assert program.module()(image).shape == (1, 4, 6, 6)
    if wanted:
        assert program.module()(torch.randn(7, 1, 8, 8)).shape == (7, 4, 6, 6)
    assert bool(model.notes) == (batch == 5)


def test_pt2_whose_reshapes_rely_on_its_batch_stays_as_it_is(tmp_path):
    class Rows(nn.Module):
        def forward(self, x):
            return x.reshape(3, 4, 2).transpose(0, 1).reshape(12, 2).cumsum(0)

    torch.export.save(torch.export.export(Rows(), (torch.randn(3, 8),)), tmp_path / "model.pt2")
    model = load_model(tmp_path / "model.pt2")
    assert model.inputs[0].shape == (3, 8)
    assert "batch is 3" in model.notes[0]


def test_pt2_with_another_open_axis_asks_for_its_size(tmp_path):
    length = torch.export.Dim("length", min=2, max=64)
    program = torch.export.export(nn.ReLU(), (torch.randn(1, 16, 8),), dynamic_shapes=({1: length},))
    torch.export.save(program, tmp_path / "model.pt2")
    with pytest.raises(InputError) as caught:
        load_model(tmp_path / "model.pt2")
    assert "--input input:1xSIZEx8:float32" in caught.value.remedy
    options = LoadOptions(inputs=(parse_input("input:1x20x8"),))
    assert load_model(tmp_path / "model.pt2", options).outputs[0].shape == (1, 20, 8)


@pytest.mark.parametrize("text", ["input:1x3x8x8", "input:1x1x8x8:int64", "other:1x1x8x8"])
def test_inputs_that_contradict_a_pt2(tmp_path, text):
    path = doctored.save_pt2(tmp_path / "model.pt2")
    with pytest.raises(InputError) as caught:
        load_model(path, LoadOptions(inputs=(parse_input(text),)))
    assert "input:1x1x8x8:float32" in caught.value.found


@pytest.mark.parametrize(
    "script", [torch.jit.trace, lambda module, _: torch.jit.script(module)], ids=["traced", "scripted"]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_of_a_trained_model(tmp_path, script):
    net, images = zoo.digits_cnn(), zoo.digits_data()[2][:2]
    torch.jit.save(script(net, torch.from_numpy(images[:1])), tmp_path / "model.pt")
    options = LoadOptions(inputs=(parse_input("image:1x1x8x8"),), trust_code=True)
    model = load_model(tmp_path / "model.pt", options)
    assert model.kind == "torchscript"
    expected = net(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(model.reference({"image": images[:1]})["output"], expected[:1], rtol=1e-4, atol=1e-4)
    together = model.program(dynamic_batch=True).module()(torch.from_numpy(images))
    np.testing.assert_allclose(together.detach().numpy(), expected, rtol=1e-4, atol=1e-4)
    assert not model.notes


def test_minilm_takes_token_ids(tmp_path):
    net, inputs = zoo.minilm(), zoo.minilm_inputs(2)
    torch.save(net.state_dict(), tmp_path / "model.pt")
    specs = tuple(TensorSpec(name, (1, 128), "int64") for name in inputs)
    model = load_model(tmp_path / "model.pt", LoadOptions(factory="minilm_encoder:build", inputs=specs))
    sample = {name: value[:1] for name, value in inputs.items()}
    expected = net(**{name: torch.from_numpy(value) for name, value in sample.items()}).detach().numpy()
    np.testing.assert_allclose(model.reference(sample)[model.outputs[0].name], expected, rtol=1e-4, atol=1e-5)
