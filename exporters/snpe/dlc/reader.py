"""`read_dlc`: from a file to a `Dlc`, every offset and length checked.

The layout of version 4 records was published by the Netron viewer (source/dlc-schema.js) and completed by reading
files that QAIRT 2.51 wrote; the comment beside each read names the slots.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.exporters.snpe.dlc.container import read_records
from edgedeploy.exporters.snpe.dlc.errors import DlcError
from edgedeploy.exporters.snpe.dlc.flatbuffer import FlatBuffer, Table
from edgedeploy.exporters.snpe.dlc.model import STORAGE, STRING, Dlc, DlcGraph, DlcNode, DlcTensor, Encoding, Role

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAGIC = b"\xd5\x0a"
_ROLES = {0: Role.INPUT, 1: Role.OUTPUT, 3: Role.NATIVE, 4: Role.STATIC}
_PER_TENSOR, _PER_AXIS = 0, 1
Arrays = dict[str, "NDArray[np.uint8]"]


def read_dlc(path: Path) -> Dlc:
    """Read a version 4 DLC (SNPE and QAIRT 2.x); parameters stay views of the mapped file.

    Raises:
        DlcError: for anything but a whole, consistent file.
    """
    return parse_records(read_records(path))


def parse_records(records: Mapping[str, memoryview]) -> Dlc:
    """Decode a container's records; raises `DlcError`."""
    version, model = _binary(records, "model", b"NETD")
    _, parameters = _binary(records, "model.params", b"NETP")
    blob = records.get("model.params.bin", memoryview(b""))
    stored = {table.string(4): table for table in parameters.tables(4)}
    graphs = tuple(_graph(table, stored.get(table.string(4)), blob) for table in model.tables(4))
    if not graphs:
        raise DlcError("it holds no graph")
    return Dlc(
        version=version,
        graphs=graphs,
        records={name: len(record) for name, record in records.items()},
        metadata=_text(records, "dlc.metadata"),
        history=_text(records, "dlc.metadata.history"),
    )


def _binary(records: Mapping[str, memoryview], name: str, file_id: bytes) -> tuple[tuple[int, int], Table]:
    if name not in records:
        raise DlcError(f"record {name!r} is missing; there are {', '.join(sorted(records)) or 'none'}")
    record = records[name]
    if bytes(record[:2]) != _MAGIC or len(record) < 8:
        raise DlcError(f"record {name!r} does not begin as a DLC record does")
    version = (int.from_bytes(record[2:4], "little"), int.from_bytes(record[4:6], "little"))
    if version[0] != 4:
        raise DlcError(f"record {name!r} has version {version[0]}.{version[1]}; this reader knows version 4")
    return version, FlatBuffer(record[8:], f"record {name!r}").root(file_id)


def _text(records: Mapping[str, memoryview], prefix: str) -> Any:
    """The record ``prefix`` or ``prefix2.3.0`` / ``prefix.2.3.0``: JSON in new files, plain text in old ones."""
    for name in sorted(records):
        rest = name.removeprefix(prefix).removeprefix(".")
        if name.startswith(prefix) and (not rest or rest[0].isdigit()):
            text = bytes(records[name]).decode("utf-8", "replace")
            try:
                return json.loads(text)
            except (json.JSONDecodeError, RecursionError):
                return text
    return ""


def _graph(table: Table, stored: Table | None, blob: memoryview) -> DlcGraph:
    name = table.string(4)
    tensors: dict[str, DlcTensor] = {}
    for entry in table.tables(8):
        tensor = _tensor(entry)
        if tensor.name in tensors:
            raise DlcError(f"graph {name!r} has two tensors named {tensor.name!r}")
        tensors[tensor.name] = tensor
    node_tables = table.tables(6)
    own = stored.tables(8) if stored else ()
    if own and len(own) != len(node_tables):
        raise DlcError(f"graph {name!r} has {len(node_tables)} nodes and parameters for {len(own)}")
    nodes = tuple(
        _node(node, _arrays(own[index].tables(4), blob) if own else {}) for index, node in enumerate(node_tables)
    )
    for node in nodes:
        for used in (*node.inputs, *node.outputs):
            if used and used not in tensors:
                raise DlcError(f"node {node.name!r} refers to tensor {used!r}, which graph {name!r} does not have")
    arrays = _arrays(stored.tables(6), blob) if stored else {}
    statics = {tensor.name: tensor for tensor in tensors.values() if tensor.role is Role.STATIC}
    for missing in sorted(statics.keys() - arrays.keys()):
        raise DlcError(f"static tensor {missing!r} has no data")
    return DlcGraph(name, nodes, tensors, {key: _shaped(arrays[key], tensor) for key, tensor in statics.items()})


def _tensor(table: Table) -> DlcTensor:
    # 6 name, 8 location, 10 shape, 14 quantization, 16 data type
    shape = table.array(10, "i4")
    sizes = () if shape is None else tuple(int(size) for size in shape)
    quantization = table.table(14)
    return DlcTensor(
        name=table.string(6),
        role=_ROLES.get(table.integer(8), Role.OTHER),
        shape=sizes,
        code=table.integer(16),
        encoding=_encoding(quantization) if quantization else None,
    )


def _encoding(table: Table) -> Encoding | None:
    # 4 kind, 8 per-tensor, 10 per-axis {4 axis, 6 encodings}; an encoding is {4 bits, 10 scale, 12 offset}
    kind = table.integer(4)
    per_tensor, per_axis = table.table(8), table.table(10)
    if kind == _PER_TENSOR and per_tensor:
        return _collect((per_tensor,), None)
    if kind == _PER_AXIS and per_axis:
        return _collect(per_axis.tables(6), per_axis.integer(4))
    return None


def _collect(entries: tuple[Table, ...], axis: int | None) -> Encoding | None:
    if not entries:
        return None
    scales = tuple(entry.real(10) for entry in entries)
    if not all(math.isfinite(scale) for scale in scales):
        raise DlcError("an encoding has a scale that is not a finite number")
    return Encoding(entries[0].integer(4), scales, tuple(-entry.integer(12) for entry in entries), axis)


def _node(table: Table, arrays: Arrays) -> DlcNode:
    # 4 name, 6 type, 8 inputs, 10 outputs, 12 attributes
    attributes: dict[str, Any] = {}
    for attribute in table.tables(12):
        name, value, tensor = attribute.string(4), attribute.table(10), attribute.table(12)
        if tensor:
            described = _tensor(tensor)
            data = arrays.get(described.name)
            attributes[name] = None if data is None else _shaped(data, described)
        elif value:
            attributes[name] = _scalar(value)
    return DlcNode(table.string(4), table.string(6), table.strings(8), table.strings(10), attributes)


def _scalar(table: Table) -> int | float | str | bool:
    # 4 data type, 6 integer, 8 float, 10 string
    code = table.integer(4)
    if code == STRING:
        return table.string(10)
    kind = STORAGE.get(code, "")
    if kind.startswith("float"):
        return table.real(8)
    return bool(table.integer(6)) if kind == "bool" else table.integer(6)


def _arrays(tables: tuple[Table, ...], blob: memoryview) -> Arrays:
    """The bytes of each stored tensor: inline (6), or a window {4 offset, 6 size} of the blob (10)."""
    arrays: Arrays = {}
    for table in tables:
        name, inline, window = table.string(4), table.array(6, "u1"), table.table(10)
        if window:
            offset, size = window.integer(4, "Q"), window.integer(6, "Q")
            if offset + size > len(blob):
                raise DlcError(
                    f"the data of {name!r} ends at byte {offset + size} of a parameter record of {len(blob)} bytes"
                )
            arrays[name] = np.frombuffer(blob, np.uint8, size, offset)
        else:
            arrays[name] = np.empty(0, np.uint8) if inline is None else inline.view(np.uint8)
    return arrays


def _shaped(data: NDArray[np.uint8], tensor: DlcTensor) -> NDArray[np.generic]:
    kind = STORAGE.get(tensor.code)
    if kind is None:
        raise DlcError(f"tensor {tensor.name!r} has the unknown data type {tensor.code:#x}")
    dtype = np.dtype(kind)
    if any(size < 0 for size in tensor.shape) or math.prod(tensor.shape) * dtype.itemsize != data.nbytes:
        shape = "x".join(map(str, tensor.shape)) or "scalar"
        raise DlcError(f"tensor {tensor.name!r} ({shape}, {kind}) has {data.nbytes} bytes of data")
    return data.view(dtype).reshape(tensor.shape)
