"""Tricks in the other containers."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from payloads import Touch, old_save, protocol_0, saved


def _zip(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def _plain() -> bytes:
    file = io.BytesIO()
    torch.save({"w": torch.ones(2)}, file)
    return file.getvalue()


def _with_member(name: str, content: bytes) -> bytes:
    file = io.BytesIO(_plain())
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def _nul_name(canary: Path) -> bytes:
    """Python's reader cuts a member's name at NUL, torch's does not."""
    return _zip(("archive/data.pklX", pickle.dumps(Touch(canary)))).replace(b"data.pklX", b"data.pkl\0")


def _tar(canary: Path) -> bytes:
    """torch.load tries tar first; the name of its first member makes it begin like a pickle."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        for name in ("\x80\x02N.", "storages", "tensors", "pickle"):
            item = tarfile.TarInfo(name)
            item.size = len(protocol_0(canary))
            archive.addfile(item, io.BytesIO(protocol_0(canary)))
    return file.getvalue()


def _script(canary: Path) -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), file)
    return file.getvalue()


def _linear() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4))],
        [numpy_helper.from_array(np.ones((3, 4), np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)


def _external(**entries: str) -> bytes:
    model = _linear()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return model.SerializeToString()


def _functions(bodies: list[list[onnx.NodeProto]]) -> bytes:
    model = _linear()
    model.opset_import.append(helper.make_opsetid("own", 1))
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    for index, body in enumerate(bodies):
        model.functions.append(helper.make_function("own", f"f{index}", ["a"], ["c"], body, opsets))
    model.graph.node.append(helper.make_node("f0", ["x"], ["z"], domain="own"))
    return model.SerializeToString()


def _call(index: int, value: str, result: str) -> onnx.NodeProto:
    return helper.make_node(f"f{index}", [value], [result], domain="own")


def _function_bomb(canary: Path) -> bytes:
    calls = [[_call(i + 1, "a", "b"), _call(i + 1, "b", "c")] for i in range(30)]
    return _functions([*calls, [helper.make_node("Relu", ["a"], ["c"])]])


def _function_reads_file(canary: Path) -> bytes:
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/hostname")
    return _functions([[helper.make_node("Constant", [], ["c"], value=tensor)]])


def _changed(change: Callable[[onnx.ModelProto], object]) -> bytes:
    model = _linear()
    change(model)
    return model.SerializeToString()


def _safetensors(header: dict[str, object], data: bytes = bytes(16)) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


_F32 = {"dtype": "F32", "shape": [2]}
#: What an entry of torch's zip directory begins with, up to its flags.
_DIRECTORY = b"PK\x01\x02\0\0\0\0"
#: Length of a text in a pickle: 2^56 bytes.
_HUGE = b"\x80\x04\x8e" + (1 << 56).to_bytes(8, "little") + b"x."

#: name → (file name, content for a canary)
TRICKS: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "pt-save": ("m.pt", saved),
    "pt-old-save": ("m.pt", old_save),
    "pt-plain-pickle": ("m.pt", lambda c: pickle.dumps(Touch(c))),
    "pt-protocol-0": ("m.pt", protocol_0),
    "pt-computed-name": ("m.pt", lambda c: b"\x80\x04\x8c\x05posix(\x8c\x06systemt0\x93\x8c\x04true\x85R."),
    "pt-extension-code": ("m.pt", lambda c: b"\x80\x02\x82\x01."),
    "pt-evaluates": (
        "m.pt",
        lambda c: f"\x80\x02cbuiltins\neval\n(V__import__('os').system('touch {c}')\ntR.".encode("latin-1"),
    ),
    "pt-second-pickle": ("m.pt", lambda c: _with_member("other.pkl", pickle.dumps(Touch(c)))),
    "pt-two-cases": ("m.pt", lambda c: _with_member("DATA.PKL", pickle.dumps(Touch(c)))),
    "pt-name-with-nul": ("m.pt", _nul_name),
    "pt-bytes-before": ("m.pt", lambda c: b"\x80\x02N." + saved(c)),
    "pt-zip-bomb": ("m.pt", lambda c: _zip(("archive/data.pkl", bytes(200 << 20)), compression=zipfile.ZIP_DEFLATED)),
    "pt-length-2-56": ("m.pt", lambda c: _HUGE),
    "pt-length-2-56-in-zip": ("m.pt", lambda c: _zip(("archive/data.pkl", _HUGE), ("archive/version", b"3\n"))),
    "pt-tar": ("m.pt", _tar),
    "pt-encrypted": ("m.pt", lambda c: saved(c).replace(_DIRECTORY + b"\0\0", _DIRECTORY + b"\1\0")),
    "torchscript": ("m.pt", _script),
    "safetensors-header-2-60": ("m.safetensors", lambda c: struct.pack("<Q", 1 << 60) + b"{}"),
    "safetensors-overlap": (
        "m.safetensors",
        lambda c: _safetensors({"a": {**_F32, "data_offsets": [0, 8]}, "b": {**_F32, "data_offsets": [4, 12]}}),
    ),
    "safetensors-beyond-end": ("m.safetensors", lambda c: _safetensors({"a": {**_F32, "data_offsets": [0, 1 << 40]}})),
    "onnx-data-outside": ("m.onnx", lambda c: _external(location="../../../etc/hostname")),
    "onnx-data-absolute": ("m.onnx", lambda c: _external(location="/etc/hostname")),
    "onnx-data-nul": ("m.onnx", lambda c: _external(location="w\0.bin")),
    "onnx-data-overlong": ("m.onnx", lambda c: _external(location="a" * 5000)),
    "onnx-data-itself": ("m.onnx", lambda c: _external(location="m.onnx")),
    "onnx-data-loop": ("m.onnx", lambda c: _external(location="loop")),
    "onnx-offset-5000-digits": ("m.onnx", lambda c: _external(location="loop", offset="9" * 5000)),
    "onnx-function-bomb": ("m.onnx", _function_bomb),
    "onnx-function-calls-itself": ("m.onnx", lambda c: _functions([[_call(0, "a", "c")]])),
    "onnx-function-reads-file": ("m.onnx", _function_reads_file),
    "onnx-100000-axes": ("m.onnx", lambda c: _changed(lambda m: m.graph.initializer[0].dims.extend([1] * 100_000))),
    "onnx-element-type-0": (
        "m.onnx",
        lambda c: _changed(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 0)),
    ),
    "onnx-element-type-99": ("m.onnx", lambda c: _changed(lambda m: setattr(m.graph.initializer[0], "data_type", 99))),
    "onnx-huge-input": (
        "m.onnx",
        lambda c: _changed(lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 2**40)),
    ),
    "onnx-huge-weight": ("m.onnx", lambda c: _changed(lambda m: m.graph.initializer[0].dims.extend([2**31]))),
    "onnx-no-output": ("m.onnx", lambda c: _changed(lambda m: m.graph.ClearField("output"))),
    "onnx-output-twice": ("m.onnx", lambda c: _changed(lambda m: m.graph.output.append(m.graph.output[0]))),
    "onnx-input-is-output": ("m.onnx", lambda c: _changed(lambda m: m.graph.output.append(m.graph.input[0]))),
}


def make(name: str, folder: Path, canary: Path) -> Path:
    """Write the file of one trick."""
    file, content = TRICKS[name]
    path = folder / file
    path.write_bytes(content(canary))
    if name in ("onnx-data-loop", "onnx-offset-5000-digits"):
        (folder / "loop").symlink_to(folder / "loop")
    return path
