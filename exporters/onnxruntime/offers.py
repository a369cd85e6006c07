"""Which candidates make sense for a graph, and why the others do not: counted, never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgedeploy.graph.facts import OpFacts
from edgedeploy.graph.graph import Graph

STATIC = "static-qdq"
MIXED = "static-mixed"
DYNAMIC = "dynamic-int8"
WEIGHT_ONLY_8 = "weight-only-int8"
WEIGHT_ONLY_4 = "weight-only-int4"
FLOAT = "float32"

#: Preferred first: within a tie of speed the pipeline takes the earlier one.
ORDER: tuple[str, ...] = (STATIC, MIXED, DYNAMIC, WEIGHT_ONLY_8, WEIGHT_ONLY_4, FLOAT)

#: Below this share of the multiply-accumulates, quantizing linear layers alone saves next to nothing.
WORTHWHILE = 0.2
#: Above this share of the multiply-accumulates in attention and linear layers a graph counts as a transformer.
DOMINANT = 0.5


@dataclass(frozen=True)
class Shares:
    """Shares of the multiply-accumulates and of the parameters, each 0 to 1.

    ``convolution``, ``linear`` (MatMul and Gemm with a constant operand) and ``attention`` (MatMul of two run-time
    tensors) are of the multiply-accumulates; ``packable`` is the share of the parameters in linear layers and
    embeddings, which weight-only kernels can pack.
    """

    convolution: float
    linear: float
    attention: float
    packable: float


def shares(graph: Graph) -> Shares:
    """Count the shares of a graph."""
    macs = {"convolution": 0, "linear": 0, "attention": 0}
    packable = 0
    for op in graph.facts:
        if op.op_type in ("Conv", "ConvTranspose"):
            macs["convolution"] += op.macs
        elif op.op_type in ("MatMul", "Gemm"):
            macs["linear" if is_linear(op) else "attention"] += op.macs
        if is_linear(op) or is_embedding(op):
            packable += op.parameters
    total = graph.macs or 1
    return Shares(
        macs["convolution"] / total,
        macs["linear"] / total,
        macs["attention"] / total,
        packable / (graph.parameters or 1),
    )


def is_linear(op: OpFacts) -> bool:
    """True for a MatMul or Gemm whose second operand is a constant matrix."""
    return op.op_type in ("MatMul", "Gemm") and any(len(weight.shape) == 2 for weight in op.weights)


def is_embedding(op: OpFacts) -> bool:
    """True for a Gather out of a constant float table."""
    return op.op_type == "Gather" and any(len(table.shape) == 2 and table.dtype == "float32" for table in op.weights)


def offers(graph: Graph, *, data_free: bool) -> Mapping[str, str]:
    """Return every candidate in `ORDER`, with "" where it is offered and else the reason why not."""
    share = shares(graph)
    kinds = {op.op_type for op in graph.facts}
    refused = dict.fromkeys(ORDER, "")
    if not kinds & {"Conv", "ConvTranspose", "MatMul", "Gemm"}:
        nothing = "the graph has no convolution or matrix product to quantize"
        return {**dict.fromkeys(ORDER, nothing), FLOAT: ""}
    if data_free:
        refused[STATIC] = refused[MIXED] = "there are no calibration data to take activation ranges from"
    elif share.attention > 0 and share.linear + share.attention > DOMINANT:
        refused[STATIC] = refused[MIXED] = (
            f"transformer layers carry {share.linear + share.attention:.0%} of the multiply-accumulates: fixed ranges "
            "lose their accuracy and are slower than dynamic ones"
        )
    if share.linear < WORTHWHILE:
        refused[DYNAMIC] = (
            f"linear layers carry only {share.linear:.1%} of the multiply-accumulates, and convolutions are never "
            "quantized dynamically (five times slower than float)"
        )
    if share.packable < DOMINANT:
        weight_only = f"linear layers and embeddings hold only {share.packable:.0%} of the parameters"
        refused[WEIGHT_ONLY_8] = refused[WEIGHT_ONLY_4] = weight_only
    return refused
