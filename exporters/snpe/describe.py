"""`describe_dlc`: what ``deploy inspect model.dlc`` prints."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from edgedeploy.exporters.snpe.dlc.model import DlcGraph, DlcTensor, Role
from edgedeploy.exporters.snpe.dlc.reader import read_dlc
from edgedeploy.plain_text import joined


def describe_dlc(path: Path, *, layers: bool = False) -> str:
    """Describe a DLC in a few lines, with ``layers`` one more line an op.

    Raises:
        DlcError: the file is no readable DLC.

    """
    dlc = read_dlc(path)
    size = path.stat().st_size
    lines = [
        f"{path.name}: DLC version {dlc.version[0]}.{dlc.version[1]}, {size / 1e6:.2f} MB"
        + (f", written by QAIRT {dlc.toolchain}" if dlc.toolchain else "")
    ]
    lines.append("  records: " + ", ".join(f"{name} {length:,} B" for name, length in sorted(dlc.records.items())))
    for graph in dlc.graphs:
        lines += _graph(graph, layers)
    return joined(lines)


def _graph(graph: DlcGraph, layers: bool) -> list[str]:
    counts = Counter(node.op_type for node in graph.nodes)
    parameters = sum(array.size for array in graph.parameters.values())
    stored = sum(array.nbytes for array in graph.parameters.values())
    encoded = sum(1 for tensor in graph.tensors.values() if tensor.encoding is not None)
    floats = sum(1 for tensor in graph.tensors.values() if tensor.is_float)
    lines = [
        f"  graph {graph.name}: {len(graph.nodes)} ops, {len(graph.tensors)} tensors "
        f"({encoded} quantized, {floats} floating-point), {parameters:,} parameters in {stored / 1e6:.2f} MB",
        "  ops: " + ", ".join(f"{count} {op}" for op, count in counts.most_common()),
        *(f"  input:  {_tensor(tensor)}" for tensor in graph.by_role(Role.INPUT)),
        *(f"  output: {_tensor(tensor)}" for tensor in graph.by_role(Role.OUTPUT)),
    ]
    if layers:
        for node in graph.nodes:
            written = ", ".join(_tensor(graph.tensors[name]) for name in node.outputs if name)
            lines.append(f"  {node.name}: {node.op_type} -> {written}")
    return lines


def _tensor(tensor: DlcTensor) -> str:
    shape = "x".join(map(str, tensor.shape)) or "scalar"
    encoding = tensor.encoding
    if encoding is None:
        return f"{tensor.name} {shape} {tensor.dtype}"
    if encoding.axis is not None:
        return f"{tensor.name} {shape} {tensor.dtype}, {len(encoding.scales)} scales on axis {encoding.axis}"
    return f"{tensor.name} {shape} {tensor.dtype}, scale {encoding.scales[0]:.6g}, zero point {encoding.zero_points[0]}"
