"""``.onnx`` as a source: shapes, external data and damage."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.errors import InputError
from edgedeploy.model.load import load_model
from edgedeploy.model.options import LoadOptions, parse_input

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def linear(shape=("N", 3), weight=WEIGHT) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (*shape[:-1], 4))],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def external(path, location="weights.bin", offset=0, length=None) -> None:
    model = linear()
    tensor = model.graph.initializer[0]
    raw = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": offset, "length": len(raw) if length is None else length}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    path.write_bytes(model.SerializeToString())


def refused(path, options=None):
    with pytest.raises(InputError) as caught:
        load_model(path, options)
    return caught.value


def test_open_batch_is_one(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(linear().SerializeToString())
    model = load_model(path)
    assert (model.kind, str(model.inputs[0]), str(model.outputs[0])) == ("onnx", "x:1x3:float32", "y:1x4:float32")
    assert model.program() is None
    assert model.module() is None
    x = np.ones((1, 3), np.float32)
    np.testing.assert_array_equal(model.reference({"x": x})["y"], x @ WEIGHT)


def test_other_open_axes_need_a_size(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(linear(("N", "length", 3)).SerializeToString())
    assert "--input x:1xSIZEx3:float32" in refused(path).remedy
    assert load_model(path, LoadOptions(inputs=(parse_input("x:1x7x3"),))).outputs[0].shape == (1, 7, 4)


@pytest.mark.parametrize("text", ["x:1x5", "x:1x3:int64", "z:1x3"])
def test_inputs_that_contradict_the_file(tmp_path, text):
    path = tmp_path / "model.onnx"
    path.write_bytes(linear().SerializeToString())
    assert refused(path, LoadOptions(inputs=(parse_input(text),))).found


def test_external_data_beside_the_model(tmp_path):
    external(tmp_path / "model.onnx")
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    model = load_model(tmp_path / "model.onnx")
    np.testing.assert_array_equal(numpy_helper.to_array(model.onnx().graph.initializer[0]), WEIGHT)
    assert model.onnx().graph.initializer[0].data_location == TensorProto.DEFAULT
    np.testing.assert_array_equal(model.reference({"x": np.ones((1, 3), np.float32)})["y"][0], WEIGHT.sum(0))


@pytest.mark.parametrize("location", ["../secret.bin", "sub/../../secret.bin", "/etc/hostname", "..\\secret.bin", ""])
def test_external_data_elsewhere(tmp_path, location):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    external(folder / "model.onnx", location)
    assert "outside its own folder" in refused(folder / "model.onnx").what


def test_external_data_through_a_link(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    (folder / "weights.bin").symlink_to(tmp_path / "secret.bin")
    external(folder / "model.onnx")
    assert "outside its own folder" in refused(folder / "model.onnx").what


def test_external_data_missing_or_short(tmp_path):
    path = tmp_path / "model.onnx"
    external(path)
    assert "missing" in refused(path).what
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes()[:-4])
    assert "too short" in refused(path).what
    external(path, offset="-8")
    assert "damaged" in refused(path).what


def test_more_than_one_file_can_hold(tmp_path):
    external(tmp_path / "model.onnx", length=2**31)
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(2**31 + 8)  # sparse
    error = refused(tmp_path / "model.onnx")
    assert "2 GiB" in error.found


def test_truncated_model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(linear().SerializeToString()[:-30])
    assert refused(path).found


def test_graph_that_is_not_valid(tmp_path):
    model = linear()
    model.graph.node[0].input[1] = "nowhere"
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert "nowhere" in refused(path).found


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "Inf")])
def test_weights_that_are_no_numbers(tmp_path, value, word):
    weight = WEIGHT.copy()
    weight[1, 1] = value
    path = tmp_path / "model.onnx"
    path.write_bytes(linear(weight=weight).SerializeToString())
    assert f"'w' ({word})" in refused(path).found
