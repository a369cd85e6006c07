"""What the manifest says of NVIDIA's gate: `parser-checked` or `built`, and never more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgedeploy.interfaces import Json

if TYPE_CHECKING:
    from edgedeploy.exporters.tensorrt.gate import GateReport
    from edgedeploy.exporters.tensorrt.settings import Settings

_BUILT, _PARSED = "built", "parser-checked"


def describe_gate(gate: GateReport, settings: Settings) -> dict[str, Json]:
    """Facts of one gate run; nodes that stayed float though their kind was to be int8 are named."""
    quantized = any(node.int8 for node in gate.nodes)
    facts: dict[str, Json] = {
        "status": _BUILT if settings.rtx else _PARSED,
        "by": f"TensorRT-RTX {gate.version} for {gate.compute_capability}",
        "network_layers": gate.network_layers,
        "engine_layers": len(gate.layers),
    }
    if not settings.rtx:
        facts["note"] = "the build for a stand-in GPU proves that the graph is taken whole; no plan of it ships"
    if not settings.strongly_typed:
        facts["older_parser"] = f"the parser of TensorRT {settings.version} is older than the one that checked"
    if quantized:
        facts["int8_nodes"] = sum(node.int8 for node in gate.nodes)
        facts["compute_nodes"] = len(gate.nodes)
        facts["dense_int8_share"] = gate.int8_share
        facts["float_dense_nodes"] = [node.node for node in gate.dense if not node.int8]
        facts["float_other_nodes"] = [node.node for node in gate.nodes if not node.int8 and node not in gate.dense]
    return facts


def describe_size(tried: Sequence[tuple[str, int]]) -> dict[str, Json]:
    """Engine size in MB of every graph that was built to choose among, by candidate."""
    return {name: round(size / 1e6, 3) for name, size in tried}
