"""The examples write what `deploy` takes."""

from __future__ import annotations

import numpy as np
import zoo

from edgedeploy.calibration.dataset import open_dataset
from edgedeploy.config import load_config
from edgedeploy.model.load import load_model
from edgedeploy.model.options import LoadOptions, parse_input


def test_efficientnet_lite0_reads_its_photos_as_the_network_wants_them(tmp_path):
    zoo.efficientnet_example.write(tmp_path)
    file = load_config(tmp_path / "model.pt", None)
    config = file.config
    inputs = tuple(parse_input(text) for text in config.model.inputs)
    data = open_dataset(file.data("calibration"), inputs, config.preprocessing["image"])
    assert len(data) == 20
    photos, labels = zoo.photos()
    model = load_model(tmp_path / "model.pt", LoadOptions(factory="efficientnet_lite0:build", inputs=inputs))
    found = [int(model.reference(sample)["output"].argmax()) for sample in data]
    assert np.mean(np.array(found) == labels) >= 0.8
    assert (
        np.mean([np.abs(sample["image"][0] - photo).mean() < 0.02 for sample, photo in zip(data, photos, strict=True)])
        == 1
    )


def test_minilm_writes_a_config_that_names_no_code(tmp_path):
    (tmp_path / "deploy.toml").write_text(zoo.minilm_example.CONFIG)
    file = load_config(tmp_path / "model.pt", None)
    assert [parse_input(text).dtype for text in file.config.model.inputs] == ["int64", "int64"]
