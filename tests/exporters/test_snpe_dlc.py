"""The DLC reader on a file that Qualcomm's own writer made, and on damaged and hostile ones."""

from __future__ import annotations

import struct
import zipfile

import numpy as np
import pytest
from onnx import numpy_helper
from snpe_nets import compiled_cnn

from edgedeploy.errors import ExitCode, InputError
from edgedeploy.exporters.snpe.describe import describe_dlc
from edgedeploy.exporters.snpe.dlc.container import split_records
from edgedeploy.exporters.snpe.dlc.errors import DlcError
from edgedeploy.exporters.snpe.dlc.model import Role
from edgedeploy.exporters.snpe.dlc.reader import parse_records, read_dlc


@pytest.fixture(scope="module")
def dlc_bytes() -> bytes:
    return compiled_cnn()[0].dlcs[0].read_bytes()


def read(data: bytes):
    try:
        return parse_records(split_records(memoryview(data)))
    except struct.error as problem:  # what read_dlc turns into a DlcError
        raise DlcError(str(problem)) from problem


def test_a_real_file_is_read_whole():
    compiled, model = compiled_cnn()
    dlc = read_dlc(compiled.dlcs[0])
    (graph,) = dlc.graphs
    assert dlc.version[0] == 4
    assert dlc.toolchain.startswith("2.")
    assert dlc.metadata["header"]["artifact_type"] == "DLC_METADATA"
    assert [tensor.name for tensor in graph.by_role(Role.INPUT)] == ["image"]
    assert graph.by_role(Role.OUTPUT)[0].shape == (1, 10)
    operations = [node.op_type for node in graph.nodes]
    assert operations.count("Conv2d") == 1
    assert operations.count("DepthWiseConv2d") == 1
    assert operations.count("Dequantize") == 1  # no stray one beside Clip
    convolution = next(node for node in graph.nodes if node.op_type == "Conv2d")
    np.testing.assert_array_equal(convolution.attributes["stride"], [2, 2])
    np.testing.assert_array_equal(convolution.attributes["pad_amount"], [[1, 1], [1, 1]])
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weight = graph.parameters["w0_quantized"]
    np.testing.assert_array_equal(weight, stored["w0_quantized"].transpose(2, 3, 1, 0))
    assert graph.tensors["w0_quantized"].encoding.axis == 3
    np.testing.assert_array_equal(
        np.array(graph.tensors["w0_quantized"].encoding.scales, np.float32), stored["w0_scale"]
    )


def test_description_names_ops_boundary_and_encodings():
    text = describe_dlc(compiled_cnn()[0].dlcs[0], layers=True)
    assert "input:  image 1x3x16x16 float32" in text
    assert "output: scores 1x10 float32" in text
    assert "1 DepthWiseConv2d" in text
    assert "written by QAIRT 2." in text
    assert "zero point" in text


def test_every_truncation_is_a_clear_error(dlc_bytes):
    for length in range(0, len(dlc_bytes) - 1, max(1, len(dlc_bytes) // 150)):
        with pytest.raises(DlcError):
            read(dlc_bytes[:length])


def test_flipped_bytes_never_crash_the_reader(dlc_bytes):
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(250):
        damaged = bytearray(dlc_bytes)
        for position in random.integers(0, len(damaged), 4):
            damaged[position] = random.integers(0, 256)
        try:
            read(bytes(damaged))
        except DlcError:
            refused += 1
    assert refused > 25  # most flips fall into weights and padding, where nothing can tell


def test_wrong_offsets_inside_the_graph_are_refused(dlc_bytes):
    records = {name: bytes(record) for name, record in split_records(memoryview(dlc_bytes)).items()}
    model = bytearray(records["model"])
    model[8:12] = struct.pack("<I", 0x7FFFFFF0)  # the root table far outside
    with pytest.raises(DlcError, match="outside"):
        parse_records({**{k: memoryview(v) for k, v in records.items()}, "model": memoryview(bytes(model))})


def test_parameters_that_end_outside_their_record_are_refused(dlc_bytes):
    records = {name: bytes(record) for name, record in split_records(memoryview(dlc_bytes)).items()}
    records["model.params.bin"] = records["model.params.bin"][:16]
    with pytest.raises(DlcError, match="ends at byte"):
        parse_records({name: memoryview(record) for name, record in records.items()})


def test_a_table_shared_beyond_reason_is_refused():
    """A small file whose 2000 graphs each hold the same 2000 tensors would expand to four million tables."""
    count = 2000
    body = bytearray()
    body += struct.pack("<I", 12) + b"NETD"  # root at 12, behind 4 bytes of padding
    body += b"\0" * 4
    vtable = len(body) + 8
    root = len(body)
    body += struct.pack("<iI", root - vtable, 8 + 6 - 4 + 2)  # soffset, graphs vector (patched below)
    body += struct.pack("<HHH", 6, 8, 4) + b"\0\0"
    vector = len(body)
    struct.pack_into("<I", body, root + 4, vector - (root + 4))
    body += struct.pack("<I", count)
    graph_offsets = len(body)
    body += b"\0" * 4 * count
    inner_vtable = len(body)
    body += struct.pack("<HHHHH", 10, 8, 0, 0, 4) + b"\0\0"  # a graph with only slot 8, tensors
    graph = len(body)
    body += struct.pack("<iI", graph - inner_vtable, 4)
    tensors = len(body)
    body += struct.pack("<I", count)
    tensor_offsets = len(body)
    body += b"\0" * 4 * count
    tensor_vtable = len(body)
    body += struct.pack("<HH", 4, 4)
    tensor = len(body)
    body += struct.pack("<i", tensor - tensor_vtable)
    for index in range(count):
        struct.pack_into("<I", body, graph_offsets + 4 * index, graph - (graph_offsets + 4 * index))
        struct.pack_into("<I", body, tensor_offsets + 4 * index, tensor - (tensor_offsets + 4 * index))
    struct.pack_into("<I", body, graph + 4, tensors - (graph + 4))
    from edgedeploy.exporters.snpe.dlc.flatbuffer import FlatBuffer

    top = FlatBuffer(memoryview(bytes(body)), "test").root(b"NETD")
    with pytest.raises(DlcError, match="expand"):
        [inner.tables(8) for inner in top.tables(4)]


def lying_zip(dlc_bytes: bytes, position: int, value: bytes) -> bytes:
    damaged = bytearray(dlc_bytes)
    damaged[position : position + len(value)] = value
    return bytes(damaged)


def test_a_directory_that_disagrees_with_the_headers_is_refused(dlc_bytes):
    central = dlc_bytes.index(b"PK\x01\x02")
    extra = central + 46 + struct.unpack_from("<H", dlc_bytes, central + 28)[0]
    with pytest.raises(DlcError, match="disagree"):
        read(lying_zip(dlc_bytes, extra + 4, struct.pack("<QQ", 16, 16)))  # sizes in the ZIP64 field


def test_a_directory_that_points_elsewhere_is_refused(dlc_bytes):
    central = dlc_bytes.rindex(b"PK\x01\x02")
    extra = central + 46 + struct.unpack_from("<H", dlc_bytes, central + 28)[0]
    at = extra + 4 + 16
    with pytest.raises(DlcError, match=r"no header|past the end|disagree"):
        read(lying_zip(dlc_bytes, at, struct.pack("<Q", 7)))


@pytest.mark.parametrize("content", [b"", b"not a dlc at all", b"PK\x05\x06" + b"\0" * 18])
def test_files_that_are_no_dlc(tmp_path, content):
    path = tmp_path / "model.dlc"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_dlc(path)
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    assert caught.value.remedy


def test_a_compressed_container_and_a_missing_record_are_named(tmp_path):
    path = tmp_path / "model.dlc"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model", b"x" * 1000)
    with pytest.raises(DlcError, match="compressed"):
        read_dlc(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("something", b"else")
    with pytest.raises(DlcError, match=r"'model' is missing; there are something"):
        read_dlc(path)


def test_an_older_version_is_named(tmp_path):
    path = tmp_path / "model.dlc"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model", b"\xd5\x0a\x03\x00\x00\x00\x00\x00" + b"\0" * 32)
    with pytest.raises(DlcError, match=r"version 3\.0; this reader knows version 4"):
        read_dlc(path)
