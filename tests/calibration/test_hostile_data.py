"""Data that are damaged or made to deceive: a sentence, before memory, disk or time are spent."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from edgedeploy.calibration.dataset import open_dataset
from edgedeploy.calibration.preprocessing import Preprocessing
from edgedeploy.calibration.table_file import load_table
from edgedeploy.errors import InputError
from edgedeploy.tensors import TensorSpec

IMAGE = TensorSpec("image", (1, 3, 4, 5), "float32")
GRAY = Preprocessing(color="gray", crop=(4, 5))
GRAY_IMAGE = TensorSpec("image", (1, 1, 4, 5), "float32")


def npy(header: str | bytes, payload: bytes = b"", version: int = 1, length: int | None = None) -> bytes:
    text = header.encode() if isinstance(header, str) else header
    count = len(text) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + count.to_bytes(2 if version == 1 else 4, "little") + text + payload


def described(shape, descr="'<f4'", order="False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


ROW = bytes(4 * 60)
HEADERS = {
    "negative": npy(described("(-1, 3, 4, 5)"), ROW),
    "boolean": npy(described("(True, 3, 4, 5)"), ROW),
    "huge": npy(described(f"({2**40}, 3, 4, 5)"), ROW),
    "beyond 64 bits": npy(described(f"({10**30}, 3, 4, 5)"), ROW),
    "4000 digits": npy(described(f"({'9' * 4000}, 3, 4, 5)"), ROW),
    "6000 digits": npy(described(f"({'9' * 6000}, 3, 4, 5)"), ROW),
    "floats": npy(described("(1.0, 3, 4, 5)"), ROW),
    "text": npy(described("('1', 3, 4, 5)"), ROW),
    "no tuple": npy(described("4"), ROW),
    "100 axes": npy(described("(1,) * 100".replace("(1,) * 100", "(" + "1, " * 100 + ")")), ROW),
    "deep": npy("(" * 5000 + ")" * 5000),
    "an expression": npy(described("__import__('os').getcwd()"), ROW),
    "no Python": npy(b"\xff\xfe{{{", ROW),
    "empty": npy(""),
    "NUL": npy(b"\0" * 64),
    "header of 4 GB": npy("{}", version=2, length=2**32 - 1),
    "version 9": npy(described("(1, 3, 4, 5)"), ROW, version=9),
    "objects": npy(described("(1, 3, 4, 5)", "'|O'"), pickle.dumps([1])),
    "structured": npy(described("(1, 3, 4, 5)", "[('a', '<f4')]"), ROW),
    "nested type": npy(described("(1, 3, 4, 5)", "('<f4', (2,))"), ROW),
    "strings": npy(described("(1, 3, 4, 5)", "'<U9'"), ROW),
    "unknown type": npy(described("(1, 3, 4, 5)", "'<q99'"), ROW),
    "type is a number": npy(described("(1, 3, 4, 5)", "7"), ROW),
    "Fortran": npy(described("(2, 3, 4, 5)", order="True"), ROW * 2),
    "cut short": npy(described("(2, 3, 4, 5)"), ROW),
    "magic only": b"\x93NUMPY",
    "nothing": b"",
    "a pickle": pickle.dumps({"image": 1}),
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS.keys())
@pytest.mark.parametrize("form", ["npz", "packed npz", "folder by input", "folder by sample", "labels"])
def test_a_strange_array_is_a_sentence(tmp_path, content, form):
    path = tmp_path / "data"
    if "npz" in form or form == "labels":
        good = io.BytesIO()
        np.save(good, np.zeros((1, 3, 4, 5), np.float32))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if "packed" in form else zipfile.ZIP_STORED) as archive:
            archive.writestr("image.npy", good.getvalue() if form == "labels" else content)
            if form == "labels":
                archive.writestr("labels.npy", content)
    else:
        path.mkdir()
        (path / ("image.npy" if form == "folder by input" else "0001.npy")).write_bytes(content)
    with pytest.raises(InputError):
        opened = open_dataset(path, [IMAGE])
        _ = opened.labels, opened[0]
        raise AssertionError("taken")


def zipped(path, names, data=b"", method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in names:
            archive.writestr(name, data)
    return path


def flipped(path, offset, value):
    content = bytearray(path.read_bytes())
    content[offset % len(content)] = value
    path.write_bytes(content)
    return path


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


ARCHIVES = {
    "empty": lambda path: zipped(path, []),
    "empty member": lambda path: zipped(path, ["image.npy"]),
    "two of one name": lambda path: zipped(path, ["image.npy", "image.npy"], HEADERS["cut short"]),
    "bzip2": lambda path: zipped(path, ["image.npy"], b"x" * 999, zipfile.ZIP_BZIP2),
    "lzma": lambda path: zipped(path, ["image.npy"], b"x" * 999, zipfile.ZIP_LZMA),
    "2000 arrays": lambda path: zipped(path, [f"{number}.npy" for number in range(2000)]),
    "an overlong name": lambda path: zipped(path, ["n" * 60_000 + ".npy"]),
    "no zip": lambda path: path.write_bytes(b"PK\x03\x04 nothing") and path,
    "0 bytes": lambda path: path.write_bytes(b"") or path,
    "a single npy": lambda path: path.write_bytes(npy(described("(1, 3, 4, 5)"), ROW)) and path,
    "more than its header says": lambda path: zipped(path, ["image.npy"], npy(described("(1, 3, 4, 5)"), ROW * 9)),
}


@pytest.mark.parametrize("make", ARCHIVES.values(), ids=ARCHIVES.keys())
def test_a_strange_archive_is_a_sentence(tmp_path, make):
    with pytest.raises(InputError):
        open_dataset(make(tmp_path / "data.npz"), [IMAGE])


def test_every_flipped_byte_of_a_zips_structure_is_a_sentence_or_harmless(tmp_path):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, image=np.ones((2, 3, 4, 5), np.float32))
    content = path.read_bytes()
    for offset in range(len(content)):
        for value in (0, 0x80, 0xFF):
            path.write_bytes(content[:offset] + bytes([value]) + content[offset + 1 :])
            with contextlib.suppress(InputError):
                list(open_dataset(path, [IMAGE]))
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(InputError):
            open_dataset(path, [IMAGE])


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    """300 MB of zeros, rightly described, in 0.3 MB."""
    count = 300_000_000 // len(ROW)
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(
        "image.npy", "w", force_zip64=True
    ) as member:  # fmt: skip
        member.write(npy(described(f"({count}, 3, 4, 5)")))
        for _ in range(count // 50_000):
            member.write(ROW * 50_000)
        member.write(ROW * (count % 50_000))
    with pytest.raises(InputError, match="suspiciously"):
        open_dataset(path, [IMAGE])


def test_labels_of_a_terabyte_in_a_sparse_file_are_refused(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    np.save(folder / "image.npy", np.zeros((2, 3, 4, 5), np.float32))
    head = npy(described(f"(2, {1 << 37})"))
    with (folder / "labels.npy").open("wb") as file:
        file.write(head)
        file.truncate(len(head) + (1 << 40))
    with pytest.raises(InputError, match="too large"):
        _ = open_dataset(folder, [IMAGE]).labels


@pytest.mark.parametrize("kind", ["fifo", "device", "missing", "broken link", "loop", "overlong", "NUL", "socket"])
@pytest.mark.parametrize("place", ["source", "npy in a folder", "image in a folder"])
def test_what_is_no_file_is_a_sentence(tmp_path, monkeypatch, kind, place):
    folder = tmp_path / "data"
    folder.mkdir()
    path = tmp_path / "x.npz" if place == "source" else folder / ("0.npy" if "npy" in place else "0.png")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        import socket

        monkeypatch.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as here:
            here.bind(path.name)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind in ("device", "broken link"):
        path.symlink_to("/dev/zero" if kind == "device" else "nowhere")
    elif place == "source":
        path = {"missing": path, "overlong": tmp_path / ("n" * 5000), "NUL": tmp_path / "a\0b"}[kind]
    with pytest.raises(InputError):
        opened = open_dataset(path if place == "source" else folder, [GRAY_IMAGE], GRAY)
        _ = opened[0]


def test_a_folder_full_of_links_is_told_apart_quickly(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(5000):
        (folder / f"{number}.npy").symlink_to("nowhere")
    with pytest.raises(InputError):
        open_dataset(folder, [IMAGE])


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\n(CANARY) (w) file closefile\nshowpage\n%%EOF\n"


def broken_images():
    from PIL import Image

    for form in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"):
        stream = io.BytesIO()
        Image.new("L", (5, 4)).save(stream, form)
        content = stream.getvalue()
        yield f"{form} cut", content[: len(content) * 2 // 3]
        yield f"{form} head only", content[:9]
    yield "PostScript", POSTSCRIPT
    yield "a bomb", b"P5 60000 60000 255\n" + bytes(64)
    yield "a thin one", b"P5 100000 1 255\n" + bytes(100_000)
    yield "text", b"not an image"
    yield "nothing", b""


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in broken_images()])
def test_a_strange_image_is_a_sentence(tmp_path, content, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/0.png").write_bytes(content)
    with pytest.raises(InputError, match=r"0\.png"):
        _ = open_dataset(tmp_path / "images", [GRAY_IMAGE], Preprocessing(color="gray", resize=16384, crop=(4, 5)))[0]
    assert not (tmp_path / "CANARY").exists()


LABEL_ROWS = ["0.png," + "9" * 5000, "0.png,99999999999", "0.png,-1", "0.png,x\0", "0.png,²", "\xff"]


@pytest.mark.parametrize("row", LABEL_ROWS)
def test_strange_labels_are_a_sentence(tmp_path, row):
    from PIL import Image

    Image.new("L", (5, 4)).save(tmp_path / "0.png")
    (tmp_path / "labels.csv").write_bytes(row.encode("latin-1" if row == "\xff" else "utf-8"))
    with pytest.raises(InputError):
        open_dataset(tmp_path, [GRAY_IMAGE], GRAY)


@pytest.mark.parametrize("content", [*HEADERS.values(), b"PK\x05\x06" + bytes(18)], ids=[*HEADERS, "empty zip"])
def test_a_strange_calibration_table_is_a_sentence(tmp_path, content):
    (tmp_path / "plain.npz").write_bytes(content)
    zipped(tmp_path / "zipped.npz", ["header.npy"], content)
    for path in tmp_path.iterdir():
        with pytest.raises(InputError):
            load_table(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"provenance": ' + "9" * 5000 + "}", "{}", "[]", "\0"])
def test_a_strange_header_of_a_calibration_table_is_a_sentence(tmp_path, text):
    path = saved(tmp_path / "table.npz", header=np.frombuffer(text.encode(), np.uint8))
    with pytest.raises(InputError):
        load_table(path)


def test_no_memory_is_spent_on_what_a_header_claims(tmp_path):
    """All of the above within 200 MB more than an import takes."""
    for name in ("huge", "beyond 64 bits", "header of 4 GB", "100 axes"):
        zipped(tmp_path / f"{name}.npz", ["image.npy"], HEADERS[name])
    code = (
        "import resource, sys, pathlib\n"
        "from edgedeploy.calibration.dataset import open_dataset\n"
        "from edgedeploy.errors import InputError\n"
        "from edgedeploy.tensors import TensorSpec\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)\n"
        "for path in pathlib.Path(sys.argv[1]).glob('*.npz'):\n"
        "    try:\n"
        "        open_dataset(path, [TensorSpec('image', (1, 3, 4, 5), 'float32')])\n"
        "    except InputError as error:\n"
        "        assert 'MemoryError' not in str(error), error\n"
        "    else:\n"
        "        sys.exit('taken')\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
