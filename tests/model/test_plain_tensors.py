"""Weights are plain tensors by name; a .pt2 of an older layout still loads; what is no file is refused."""

from __future__ import annotations

import io
import os
import random
import zipfile

import doctored
import numpy as np
import pytest
import torch

from edgedeploy.errors import InputError
from edgedeploy.inspection import describe
from edgedeploy.model.load import load_model
from edgedeploy.model.options import LoadOptions, parse_input

SMALL = LoadOptions(factory="doctored:small_net", inputs=(parse_input("image:1x1x8x8:float32"),))


def other(kind):
    weights = dict(doctored.small_net().state_dict())
    if kind == "int keys":
        return dict(enumerate(weights.values()))
    weights["0.weight"] = {
        "sparse": lambda: torch.ones(4, 4).to_sparse(),
        "meta": lambda: torch.ones(4, 1, 3, 3, device="meta"),
        "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    }[kind]()
    return weights


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["int keys", "sparse", "meta", "nested"])
def test_weights_that_are_not_plain(tmp_path, kind):
    torch.save(other(kind), tmp_path / "m.pt")
    with pytest.raises(InputError) as caught:
        load_model(tmp_path / "m.pt", SMALL)
    assert caught.value.found


def test_weights_and_constants_of_the_older_layout(tmp_path):
    good = doctored.save_pt2(tmp_path / "good.pt2")
    net = doctored.small_net()
    weights, constants = io.BytesIO(), io.BytesIO()
    torch.save(dict(net.state_dict(keep_vars=True)), weights)
    torch.save({}, constants)
    with zipfile.ZipFile(good) as archive, zipfile.ZipFile(tmp_path / "m.pt2", "w") as out:
        for name in archive.namelist():
            if "/data/weights/" not in name and "/data/constants/" not in name:
                out.writestr(name, archive.read(name))
        out.writestr("archive/data/weights/model.pt", weights.getvalue())
        out.writestr("archive/data/constants/model.pt", constants.getvalue())
    image = np.random.default_rng(0).standard_normal((1, 1, 8, 8)).astype(np.float32)
    model = load_model(tmp_path / "m.pt2")
    got = next(iter(model.reference({model.inputs[0].name: image}).values()))
    np.testing.assert_array_equal(got, net(torch.from_numpy(image)).detach().numpy())


@pytest.mark.parametrize("look", [load_model, describe])
def test_a_fifo_is_not_waited_for(tmp_path, look):
    os.mkfifo(tmp_path / "m.pt")
    with pytest.raises(InputError, match="no regular file"):
        look(tmp_path / "m.pt")


@pytest.mark.parametrize("seed", range(25))
def test_a_damaged_tflite_is_described_or_refused(tmp_path, seed):
    chance = random.Random(seed)
    path = tmp_path / "m.tflite"
    path.write_bytes(b"\x1c\x00\x00\x00TFL3" + chance.randbytes(chance.randrange(400)))
    try:
        describe(path)
    except InputError as error:
        assert error.found
    except Exception as error:  # a missing schema package says how to install it
        assert "install" in str(error)
