"""The op trace that QNN leaves: which nodes were placed, and Qualcomm's reason for each that was not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "qnn_op_trace.json"
_BOUNDARY = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True)
class Refusal:
    """A node that QNN does not take, with Qualcomm's reason."""

    op_type: str
    node: str
    reason: str


@dataclass(frozen=True)
class OpTrace:
    """Attributes: refusals; mapped, the number of ops placed; sources, the ONNX names behind each placed op."""

    refusals: tuple[Refusal, ...]
    mapped: int
    sources: dict[str, tuple[str, ...]]


def read_trace(folder: Path) -> OpTrace:
    """Read the trace in ``folder``; an empty one where QNN left none.

    A QuantizeLinear or DequantizeLinear is refused along with the op it belongs to, so it is named only where nothing
    else is.
    """
    path = folder / FILE
    if not path.exists():
        return OpTrace((), 0, {})
    raw: dict[str, Any] = json.loads(path.read_text())
    refused: dict[str, Refusal] = {}
    sources: dict[str, tuple[str, ...]] = {}
    for part in raw.get("subgraph_traces", []):
        for mapping in part.get("op_mappings", []):
            sources[mapping["dst_name"]] = tuple(source["name"] for source in mapping.get("sources", []))
    for node in raw.get("unsupported_nodes", []):
        name = str(node.get("node_name", ""))
        refused[name] = Refusal(str(node.get("op_type", "")), name, _sentence(str(node.get("reason", ""))))
    real = tuple(refusal for refusal in refused.values() if refusal.op_type not in _BOUNDARY)
    return OpTrace(real or tuple(refused.values()), len(sources), sources)


def _sentence(reason: str) -> str:
    return " ".join(reason.split())
