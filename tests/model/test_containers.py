"""The container is told from the bytes, and whatever is no model is refused with what it is."""

from __future__ import annotations

import gzip
import io
import zipfile

import doctored
import numpy as np
import pytest
import torch

from edgedeploy.errors import ExitCode, InputError
from edgedeploy.model.container import Container, sniff
from edgedeploy.model.load import load_model
from edgedeploy.model.options import LoadOptions, parse_input


def refused(path, options=None):
    with pytest.raises(InputError) as caught:
        load_model(path, options)
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    return caught.value


def test_the_suffix_does_not_matter(tmp_path):
    net = doctored.small_net()
    doctored.save_pt2(tmp_path / "a.onnx")
    torch.save(net.state_dict(), tmp_path / "b.pt2")
    torch.save(net.state_dict(), tmp_path / "c.safetensors", _use_new_zipfile_serialization=False)
    torch.jit.save(torch.jit.trace(net, torch.ones(1, 1, 8, 8)), tmp_path / "d.bin")
    import safetensors.torch

    safetensors.torch.save_file(net.state_dict(), tmp_path / "e.pt")
    torch.onnx.export(net, (torch.ones(1, 1, 8, 8),), tmp_path / "f.pt", verbose=False, external_data=False)
    kinds = [sniff(tmp_path / name) for name in ("a.onnx", "b.pt2", "c.safetensors", "d.bin", "e.pt", "f.pt")]
    assert kinds == [
        Container.EXPORTED_PROGRAM,
        Container.PICKLE,
        Container.LEGACY_PICKLE,
        Container.TORCHSCRIPT,
        Container.SAFETENSORS,
        Container.ONNX,
    ]


def test_missing_file(tmp_path):
    assert "no model file" in refused(tmp_path / "nowhere.pt").what


def test_folder(tmp_path):
    assert "folder" in refused(tmp_path).what


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "empty file"),
        (b"\n<!DOCTYPE html><html><body>Sign in", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        (gzip.compress(b"weights", mtime=0), "gzip"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(100), "TFLite"),
        (b"GGUF\x03\x00\x00\x00", "GGUF"),
        (b"\x93NUMPY\x01\x00", "numpy"),
        (bytes(4096), "zeros"),
        (b'{"layers": []}', "JSON"),
        (b"these are not the weights", "these are not"),
    ],
)
def test_what_is_no_model(tmp_path, content, found):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    error = refused(path)
    assert found in error.found
    assert "safetensors" in error.remedy


def test_npz_is_data(tmp_path):
    np.savez(tmp_path / "model.npz", x=np.ones(3))
    assert "--calibration" in refused(tmp_path / "model.npz").found


def test_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "readme.txt" in refused(tmp_path / "model.pt").found


@pytest.mark.parametrize("keep", [30, 200, -1, -40])
@pytest.mark.parametrize("kind", ["pt2", "state_dict"])
def test_truncated_archive(tmp_path, kind, keep):
    path = tmp_path / "model.pt"
    doctored.save_pt2(path) if kind == "pt2" else torch.save(doctored.small_net().state_dict(), path)
    path.write_bytes(path.read_bytes()[:keep])
    assert "truncated" in refused(path).found


@pytest.mark.parametrize("kind", ["pt2", "state_dict"])
def test_flipped_bit_in_the_weights(tmp_path, kind):
    path = tmp_path / "model.pt"
    doctored.save_pt2(path) if kind == "pt2" else torch.save(doctored.small_net().state_dict(), path)
    content = bytearray(path.read_bytes())
    at = content.find(doctored.small_net()[0].weight.detach().numpy().tobytes())
    content[at + 2] ^= 0x40
    path.write_bytes(content)
    assert "corrupted" in refused(path).found


def test_zip_bomb(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", b"\x80\x02}.")
        with archive.open("model/data/0", "w") as member:
            for _ in range(300):
                member.write(bytes(2**20))
    assert "unpack" in refused(path).found


def test_member_named_twice(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("model/data.pkl", b"\x80\x02}.")
        archive.writestr("model/data.pkl", b"\x80\x02}.")
    assert "twice" in refused(path).found


def test_archive_behind_other_bytes(tmp_path):
    buffer = io.BytesIO()
    torch.save(doctored.small_net().state_dict(), buffer)
    (tmp_path / "model.pt").write_bytes(b"#!/bin/sh\n" + buffer.getvalue())
    assert "hidden" in refused(tmp_path / "model.pt").found


def test_legacy_pickle_cut_short(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(doctored.small_net().state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:300])
    refused(path, LoadOptions(inputs=(parse_input("x:1x1x8x8"),), factory="doctored:small_net"))


def test_safetensors_cut_short(tmp_path):
    import safetensors.torch

    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(doctored.small_net().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "damaged" in refused(path, LoadOptions(factory="doctored:small_net")).what


def test_exported_program_of_an_older_torch(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as archive:
        archive.writestr("version", "8.0")
        archive.writestr("serialized_exported_program.json", "{}")
    assert "newer torch" in refused(tmp_path / "model.pt2").found


def test_damaged_graph_of_a_pt2(tmp_path):
    good = doctored.save_pt2(tmp_path / "good.pt2")
    bad = doctored.rewrite(
        good, tmp_path / "bad.pt2", lambda name, content: content[:100] if name == "models/model.json" else content
    )
    assert "JSON" in refused(bad).found
