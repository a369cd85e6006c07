"""What each node of the optimized graph really computes in: integer kernels, dequantized weights, or float.

A quantized model may run in float in silence, because a pattern did not fuse. The worker's profile shows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Kernels that multiply integers (onnxruntime 1.31, contrib and standard domains).
INTEGER = frozenset(
    [
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulInteger16",
        "MatMulIntegerToFloat",
        "QAttention",
        "QGemm",
        "QLinearConv",
        "QLinearConvTranspose",
        "QLinearMatMul",
        "QMoE",
    ]
)
#: Kernels that take packed integer weights and float activations.
WEIGHT_ONLY = frozenset({"MatMulBnb4", "MatMulFpQ4", "MatMulNBits", "MatMulNBitsMlp", "MatMulNBitsQkv"})
#: Kernels that multiply floats.
FLOAT = frozenset(
    [
        "Attention",
        "Conv",
        "ConvTranspose",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "GRU",
        "Gemm",
        "LSTM",
        "MatMul",
        "MultiHeadAttention",
        "NhwcFusedConv",
        "RNN",
        "TransposeMatMul",
    ]
)
CONVERSIONS = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})


@dataclass(frozen=True)
class Placement:
    """Counts of the nodes that multiply, their shares of the time, and the names of those left in float.

    ``time_share`` is by kind: "integer", "weight_only", "float", "conversion", "other"; they sum to 1.
    """

    integer: int
    weight_only: int
    float_nodes: tuple[str, ...]
    conversions: int
    time_share: Mapping[str, float]
    slowest: Mapping[str, float]

    def details(self) -> dict[str, Any]:
        """As measurements.json shows it."""
        return {
            "multiplying_nodes": {
                "integer": self.integer,
                "weight_only": self.weight_only,
                "float": len(self.float_nodes),
            },
            "conversion_nodes": self.conversions,
            "float_nodes": list(self.float_nodes),
            "time_share": dict(self.time_share),
            "time_share_by_op": dict(self.slowest),
        }

    @property
    def warning(self) -> str:
        """A sentence where a quantized artefact multiplies in float, else ""."""
        total = self.integer + self.weight_only + len(self.float_nodes)
        if not self.float_nodes or total == len(self.float_nodes):
            return ""
        ops = Counter(name.partition(" ")[0] for name in self.float_nodes)
        named = ", ".join(f"{count} {op}" for op, count in sorted(ops.items()))
        share = self.time_share["float"]
        count = len(self.float_nodes)
        return f"{count} of {total} multiplying nodes run in float ({share:.0%} of the kernel time): {named}"


def placement(nodes: Sequence[Mapping[str, Any]]) -> Placement:
    """Sort the rows of the worker's profile (``name``, ``op``, ``us``) by what they compute in."""
    times: Counter[str] = Counter()
    ops: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    floats = []
    for node in nodes:
        kind = _kind(node["op"])
        kinds[kind] += 1
        times[kind] += node["us"]
        ops[node["op"]] += node["us"]
        if kind == "float":
            floats.append(f"{node['op']} {node['name']}")
    total = sum(times.values()) or 1.0
    return Placement(
        kinds["integer"],
        kinds["weight_only"],
        tuple(floats),
        kinds["conversion"],
        {kind: round(times[kind] / total, 4) for kind in ("integer", "weight_only", "float", "conversion", "other")},
        {op: round(time / total, 4) for op, time in ops.most_common(8)},
    )


def _kind(op: str) -> str:
    for kind, ops in (
        ("integer", INTEGER),
        ("weight_only", WEIGHT_ONLY),
        ("float", FLOAT),
        ("conversion", CONVERSIONS),
    ):
        if op in ops:
            return kind
    return "other"
