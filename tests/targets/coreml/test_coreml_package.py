"""Damaged and foreign packages end in one clear error each."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from coremltools.libmilstoragepython import _BlobStorageReader, _BlobStorageWriter
from mil_program import package

from edgedeploy.errors import InputError, UnsupportedOpError
from edgedeploy.targets.coreml.blobs import WeightFile
from edgedeploy.targets.coreml.dtypes import BY_NAME
from edgedeploy.targets.coreml.executor import Executor
from edgedeploy.targets.coreml.package import open_package

WEIGHTS = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
X = np.ones((1, 64), np.float32)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "m.mlpackage"
    return package(lambda mb, x: mb.linear(x=x, weight=WEIGHTS), {"x": X}, path)


@pytest.fixture
def copy(good, tmp_path):
    return Path(shutil.copytree(good, tmp_path / "m.mlpackage"))


def weight_file(path):
    return next(path.rglob("weight.bin"))


def model_file(path):
    return next(path.rglob("*.mlmodel"))


def edit_spec(path, change):
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model()
    spec.ParseFromString(model_file(path).read_bytes())
    change(spec)
    model_file(path).write_bytes(spec.SerializeToString())


def test_the_good_one_runs(good):
    result = next(iter(Executor(good).run({"x": X}).values()))
    np.testing.assert_allclose(result, X @ WEIGHTS.T, atol=1e-4)


def test_missing_weight_file(copy):
    weight_file(copy).unlink()
    with pytest.raises(InputError, match=r"no weight file 'weight\.bin'"):
        Executor(copy)


@pytest.mark.parametrize("size", [0, 10, 64, 100, 5000])
def test_truncated_weight_file(copy, size):
    file = weight_file(copy)
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(InputError, match=r"'weight\.bin' is damaged"):
        Executor(copy)


@pytest.mark.parametrize("offset", [0, 63, 65, 10**9, 2**63])
def test_offset_outside_the_file_or_off_a_blob(copy, offset):
    def change(spec):
        for function in spec.mlProgram.functions.values():
            for block in function.block_specializations.values():
                for operation in block.operations:
                    if operation.attributes["val"].HasField("blobFileValue"):
                        operation.attributes["val"].blobFileValue.offset = offset

    edit_spec(copy, change)
    with pytest.raises(InputError, match="damaged"):
        Executor(copy)


def test_data_that_ends_outside_the_file(copy):
    file = weight_file(copy)
    data = bytearray(file.read_bytes())
    struct.pack_into("<Q", data, 64 + 8, 2**40)
    file.write_bytes(data)
    with pytest.raises(InputError, match="outside the file"):
        Executor(copy)


def test_shape_that_the_blob_does_not_fill(copy):
    def change(spec):
        for function in spec.mlProgram.functions.values():
            for block in function.block_specializations.values():
                for operation in block.operations:
                    if operation.attributes["val"].HasField("blobFileValue"):
                        operation.attributes["val"].type.tensorType.dimensions[0].constant.size = 63

    edit_spec(copy, change)
    with pytest.raises(InputError, match="needs"):
        Executor(copy)


def test_weight_file_outside_the_package(copy, tmp_path):
    outside = tmp_path / "secret.bin"
    outside.write_bytes(weight_file(copy).read_bytes())

    def change(spec):
        for function in spec.mlProgram.functions.values():
            for block in function.block_specializations.values():
                for operation in block.operations:
                    if operation.attributes["val"].HasField("blobFileValue"):
                        operation.attributes["val"].blobFileValue.fileName = "@model_path/../../../../secret.bin"

    edit_spec(copy, change)
    with pytest.raises(InputError, match="outside itself"):
        Executor(copy)


def test_unknown_op(copy):
    def change(spec):
        for function in spec.mlProgram.functions.values():
            for block in function.block_specializations.values():
                block.operations[-1].type = "warp_reality"

    edit_spec(copy, change)
    with pytest.raises(UnsupportedOpError, match="warp_reality"):
        Executor(copy)


def test_a_declared_shape_that_the_result_does_not_have(copy):
    def change(spec):
        for function in spec.mlProgram.functions.values():
            for block in function.block_specializations.values():
                block.operations[-1].outputs[0].type.tensorType.dimensions[1].constant.size = 65

    edit_spec(copy, change)
    with pytest.raises(InputError, match=r"declared float32\[1x65\]"):
        Executor(copy).run({"x": X})


def test_neural_network_model(copy):
    def change(spec):
        spec.neuralNetwork.SetInParent()

    edit_spec(copy, change)
    with pytest.raises(InputError, match="not an ML program") as caught:
        open_package(copy)
    assert "neuralNetwork" in caught.value.found


def test_manifest_that_is_missing_broken_or_points_outside(copy, tmp_path):
    with pytest.raises(InputError, match=r"not an \.mlpackage"):
        open_package(tmp_path)
    manifest = copy / "Manifest.json"
    text = manifest.read_text()
    entries = json.loads(text)
    root = entries["rootModelIdentifier"]
    entries["itemInfoEntries"][root]["path"] = "../../../etc/passwd"
    manifest.write_text(json.dumps(entries))
    with pytest.raises(InputError, match="outside itself"):
        open_package(copy)
    entries["itemInfoEntries"][root]["path"] = "gone.mlmodel"
    manifest.write_text(json.dumps(entries))
    with pytest.raises(InputError, match="lacks its model file"):
        open_package(copy)
    manifest.write_text(text[:20])
    with pytest.raises(InputError, match="manifest"):
        open_package(copy)


def test_a_spec_that_is_not_protobuf(copy):
    model_file(copy).write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match="not a Core ML spec"):
        open_package(copy)


@pytest.mark.parametrize(
    "kind", ["uint1", "uint2", "uint3", "uint4", "uint6", "uint8", "int4", "int8", "int16", "int32"]
)
def test_weight_file_agrees_with_coremltools_own_reader(tmp_path, kind):
    from coremltools.converters.mil.mil import types

    rng = np.random.default_rng(1)
    scalar = BY_NAME[kind]
    low, high = (0, 2**scalar.bits) if kind.startswith("u") else (-(2 ** (scalar.bits - 1)), 2 ** (scalar.bits - 1))
    values = rng.integers(low, high, 37).astype(scalar.storage)
    path = tmp_path / "weight.bin"
    writer = _BlobStorageWriter(str(path))
    write = getattr(writer, f"write_{kind}_data")
    typed = values.astype(types.nptype_from_builtin(getattr(types, kind))) if scalar.bits < 8 else values
    offset = write(typed)
    del writer
    np.testing.assert_array_equal(WeightFile(path).read(offset, scalar, (37,)), values)
    own = getattr(_BlobStorageReader(str(path)), f"read_{kind}_data")(offset)
    np.testing.assert_array_equal(np.asarray(own).astype(np.int64), values.astype(np.int64))
