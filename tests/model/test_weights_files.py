"""Files that hold weights only: where they are found, what builds the model, and what does not fit."""

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

INPUT = (parse_input("image:1x1x8x8:float32"),)
SMALL = LoadOptions(factory="doctored:small_net", inputs=INPUT)


def refused(path, options):
    with pytest.raises(InputError) as caught:
        load_model(path, options)
    return caught.value


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"model": weights, "optimizer": {"lr": 0.1}},
        lambda weights: {"model": {"state_dict": weights}, "epoch": 1},
        lambda weights: {f"module.{name}": value for name, value in weights.items()},
        lambda weights: {"state_dict": {f"_orig_mod.{name}": value for name, value in weights.items()}},
    ],
    ids=["bare", "state_dict", "model", "nested", "DataParallel", "compiled"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_trained_weights_wherever_the_checkpoint_keeps_them(path, wrap, zipped):
    net = zoo.digits_cnn()
    torch.save(wrap(net.state_dict()), path, _use_new_zipfile_serialization=zipped)
    images = zoo.digits_data()[2][:3]
    model = load_model(path, LoadOptions(factory="digits_cnn:DigitsCnn", inputs=INPUT))
    assert model.kind == "state_dict"
    for image in images:
        expected = net(torch.from_numpy(image[None])).detach().numpy()
        np.testing.assert_allclose(model.reference({"image": image[None]})["output"], expected, rtol=1e-5, atol=1e-5)


def test_safetensors(tmp_path):
    import safetensors.torch

    net = doctored.small_net()
    safetensors.torch.save_file(net.state_dict(), tmp_path / "weights.bin")
    model = load_model(tmp_path / "weights.bin", SMALL)
    image = np.random.default_rng(1).standard_normal((1, 1, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(model.reference({"image": image})["output"], net(torch.from_numpy(image)).detach())


def test_half_precision_weights_become_float32(path):
    torch.save(
        {name: v.half() if v.is_floating_point() else v for name, v in doctored.small_net().state_dict().items()}, path
    )
    model = load_model(path, SMALL)
    assert {p.dtype for p in model.module().parameters()} == {torch.float32}


def test_weights_without_an_architecture(path):
    torch.save(doctored.small_net().state_dict(), path)
    error = refused(path, LoadOptions(inputs=INPUT))
    assert "--model" in error.remedy
    assert "0.weight" in error.found


def test_no_input_shapes(path):
    torch.save(doctored.small_net().state_dict(), path)
    assert "--input" in refused(path, LoadOptions(factory="doctored:small_net")).remedy


def test_keys_that_do_not_fit_are_all_listed(path):
    weights = dict(doctored.small_net().state_dict())
    weights["extra.weight"] = weights.pop("0.bias")
    weights["0.weight"] = torch.ones(4, 3, 3, 3)
    torch.save(weights, path)
    found = refused(path, SMALL).found
    assert "1 missing: 0.bias" in found
    assert "1 unexpected: extra.weight" in found
    assert "0.weight is (4, 3, 3, 3) in the file and (4, 1, 3, 3) in the model" in found


def test_checkpoint_without_weights(path):
    torch.save({"epoch": 3, "loss": [1.0, 0.5]}, path)
    assert "epoch, loss" in refused(path, SMALL).found


@pytest.mark.parametrize(
    ("factory", "found"),
    [
        ("doctored.small_net", "no ':'"),
        ("no_such_package:build", "no_such_package"),
        ("doctored:no_such_function", "no_such_function"),
        ("doctored:os", "module"),
        ("doctored:save_pt2", "TypeError"),
        ("doctored:io.BytesIO", "BytesIO"),
        ("string:capwords.__doc__", "str"),
    ],
)
def test_wrong_factory(path, factory, found):
    torch.save(doctored.small_net().state_dict(), path)
    error = refused(path, LoadOptions(factory=factory, inputs=INPUT))
    assert factory in error.what
    assert found in error.found


def test_factory_in_the_current_folder(path, tmp_path, monkeypatch):
    (tmp_path / "my_own_net.py").write_text("import doctored\n\ndef make():\n    return doctored.small_net()\n")
    monkeypatch.chdir(tmp_path)
    torch.save(doctored.small_net().state_dict(), path)
    assert load_model(path, LoadOptions(factory="my_own_net:make", inputs=INPUT)).kind == "state_dict"


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NaN"), (float("inf"), "Inf"), (-float("inf"), "Inf")])
def test_weights_that_are_no_numbers_are_named(path, value, word):
    weights = doctored.small_net().state_dict()
    weights["0.weight"][2, 0, 1, 1] = value
    torch.save(weights, path)
    error = refused(path, SMALL)
    assert "'0.weight'" in error.found
    assert word in error.found


def test_nan_in_a_buffer_of_a_pt2(tmp_path):
    net = doctored.small_net()
    net[1].running_mean[0] = float("nan")
    torch.export.save(torch.export.export(net, (torch.ones(1, 1, 8, 8),)), tmp_path / "model.pt2")
    assert "'1.running_mean' (NaN)" in refused(tmp_path / "model.pt2", LoadOptions()).found


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + self.mask).softmax(-1)


def test_minus_infinity_in_a_mask_is_no_damage(tmp_path):
    torch.export.save(torch.export.export(Masked(), (torch.ones(1, 4, 4),)), tmp_path / "model.pt2")
    assert load_model(tmp_path / "model.pt2").outputs[0].shape == (1, 4, 4)
