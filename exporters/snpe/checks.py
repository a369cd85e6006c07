"""What Hexagon cannot take whatever the compiler says: dynamic shapes, batches, wide integers, known traps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedeploy.errors import InputError, UnsupportedOpError

if TYPE_CHECKING:
    from edgedeploy.graph.graph import Graph

BACKEND = "Qualcomm's HTP"

#: Ops that QNN refuses or cannot prepare on this arch once the rewrites had their turn, and why.
REFUSED: dict[str, str] = {
    "Erf": "QNN has no Erf; the GELU form x * 0.5 * (1 + erf(x / sqrt 2)) is rewritten, this one is another",
    "GRU": "QNN cannot prepare it; it is unrolled only with batch 1, standard activations, constant weights, "
    "full-length sequences and at most 512 steps",
    "Hardmax": "QNN has no Hardmax; use ArgMax",
    "If": "a graph with branches cannot be compiled ahead of time",
    "LSTM": "QNN cannot prepare it; it is unrolled only with batch 1, standard activations, constant weights, "
    "full-length sequences, no peepholes and at most 512 steps",
    "Loop": "a graph with loops cannot be compiled ahead of time",
    "NonMaxSuppression": "the number of its results depends on the data; run it on the CPU after the model",
    "NonZero": "the number of its results depends on the data",
    "RNN": "QNN cannot prepare it; it is unrolled only with batch 1, tanh, constant weights and at most 512 steps",
    "Scan": "a graph with loops cannot be compiled ahead of time",
    "Trilu": "QNN has no Trilu; multiply by a constant mask",
    "Unique": "the number of its results depends on the data",
}
#: Of those, what ONNX Runtime's CPU provider runs as part of a split graph (``allow_cpu_nodes``).
ON_CPU = frozenset({"Erf", "GRU", "Hardmax", "LSTM", "RNN", "Trilu"})
#: Wrong results that compile: 8 bits lose the sum, 16 bits break the lookup table.
ONLY_16_BIT = frozenset({"CumSum"})
ONLY_8_BIT = frozenset({"Log"})


def check_interface(graph: Graph) -> None:
    """Refuse dynamic shapes, batches above 1 and inputs of types that Hexagon has not.

    Axis 0 of a recurrent state counts layers, that of a table its rows: where any input has a 1 there, the batch is 1.

    Raises:
        InputError: naming the input.

    """
    one_sample = any(port.shape and port.shape[0] == 1 for port in graph.inputs)
    for port in graph.inputs:
        if not port.is_static:
            raise InputError(
                f"Input {port.name!r} has a size that is only known at run time; Hexagon graphs are fixed.",
                found=str(port),
                remedy='Fix the input\'s shape, for example inputs = ["image:1x3x224x224:float32"] in deploy.toml.',
            )
        if port.shape and port.shape[0] != 1 and not one_sample:
            raise InputError(
                f"Input {port.name!r} has a batch of {port.shape[0]}; on the device one sample is run at a time.",
                found=str(port),
                remedy="Export the model with a batch of 1.",
            )
        if port.dtype not in ("float32", "int32", "int64", "bool", "uint8", "int8"):
            raise InputError(
                f"Input {port.name!r} has the type {port.dtype}, which Hexagon has not.",
                found=str(port),
                remedy="Feed float32, or int32 for indices.",
            )


def check_ops(graph: Graph, *, allow_cpu_nodes: int = 0) -> None:
    """Refuse by name what no rewrite could help; the compiler's own trace names the rest.

    Args:
        allow_cpu_nodes: so many of `ON_CPU` are left to the phone's CPU.

    Raises:
        UnsupportedOpError: with every such node.

    """
    found = [
        (node.op_type, node.name, REFUSED[node.op_type]) for node in graph.model.graph.node if node.op_type in REFUSED
    ]
    if len(found) > allow_cpu_nodes or any(op_type not in ON_CPU for op_type, _, _ in found):
        raise UnsupportedOpError(BACKEND, found)
