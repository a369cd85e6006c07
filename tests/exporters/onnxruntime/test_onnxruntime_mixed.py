"""Mixed precision as the cure: offered only after plain INT8 missed a gate, and it keeps few layers float."""

from __future__ import annotations

import numpy as np
import onnx
import zoo
from onnx import numpy_helper

from edgedeploy import deploy
from edgedeploy.bundle.manifest import Manifest


def outlier_model(path):
    """The digits CNN with four activation channels 300 times larger than the others: one range is too coarse."""
    from edgedeploy.graph.capture import capture
    from edgedeploy.model.load import load_model

    zoo.digits_example.write(path)
    graph = capture(load_model(path / "model.pt"))
    convs = [node for node in graph.model.graph.node if node.op_type == "Conv"]
    tensors = {tensor.name: tensor for tensor in graph.model.graph.initializer}
    # Four channels of the stem grow 300-fold, and both convolutions that read them weigh them 300 times less.
    stem, body, down = convs[:3]
    changes = [(name, 0, 300.0) for name in stem.input[1:]] + [(node.input[1], 1, 1 / 300) for node in (body, down)]
    for name, axis, factor in changes:
        values = numpy_helper.to_array(tensors[name]).copy()
        np.moveaxis(values, axis, 0)[:4] *= factor
        tensors[name].CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(graph.model, path / "model.onnx")
    (path / "model.pt").unlink()
    return path / "model.onnx"


def manifest_of(result):
    return Manifest.model_validate_json((result.bundle / "manifest.json").read_bytes())


def test_mixed_precision_is_made_where_plain_int8_misses_the_gate(tmp_path):
    model = outlier_model(tmp_path / "model")
    (model.parent / "deploy.toml").write_text("[quality]\nmin_agreement = 0.97\nmin_sqnr_db = 34\n")
    reasons = {
        item.candidate: item.reason for item in manifest_of(deploy(model, "host", output=tmp_path / "a")).candidates
    }
    assert "min_sqnr_db" in reasons["static-qdq"]
    assert "failed" not in reasons["static-mixed"], reasons
    pinned = manifest_of(deploy(model, "host", output=tmp_path / "b", candidate="static-mixed"))
    kept = pinned.artefact.details["kept_float"]
    assert 1 <= len(kept["layers"]) <= 4
    assert kept["integer_macs_share"] > 0


def test_mixed_precision_can_be_switched_off(tmp_path):
    model = outlier_model(tmp_path / "model")
    (model.parent / "deploy.toml").write_text("[quality]\nmin_agreement = 0.97\nmin_sqnr_db = 34\n")
    found = manifest_of(deploy(model, "host", output=tmp_path / "a", options={"mixed_precision": "false"}))
    assert "static-mixed" not in {item.candidate for item in found.candidates}
    assert "mixed_precision=false" in str(found.model_dump())


def test_mixed_precision_is_not_made_where_plain_int8_passes(tmp_path):
    zoo.digits_example.write(tmp_path / "model")
    result = deploy(tmp_path / "model" / "model.pt", "host", output=tmp_path / "out")
    assert "static-mixed" not in {item.candidate for item in manifest_of(result).candidates}
