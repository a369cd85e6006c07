"""Which tensors of a graph need statistics of their own, and which share another's."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import onnx

from edgedeploy.graph.graph import Graph

#: Ops that move or reshape every value of their first input exactly once: the output's statistics are the input's.
PERMUTING = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity"})

#: Activations that every known backend fuses into the producer, so that the tensor between them never exists.
FUSED = frozenset({"Relu", "Clip"})

#: Ops whose inputs and outputs carry channels on axis 1.
SPATIAL = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Resize",
        "InstanceNormalization",
    }
)


@dataclass(frozen=True)
class Observed:
    """What the collector looks at.

    Attributes:
        tensors: float tensors to observe, in graph order, graph inputs included.
        aliases: tensors whose values are a permutation of an observed one's, by name.
        fused: tensors that exist only between an op and the activation fused into it; not observed.
        channel_axis: axis of the channels of each observed tensor; absent where it has none.
    """

    tensors: tuple[str, ...]
    aliases: dict[str, str]
    fused: frozenset[str]
    channel_axis: dict[str, int]


def observed_tensors(graph: Graph, include_fused: bool = False) -> Observed:
    """Choose the tensors of a graph that can be quantized.

    Args:
        graph: the canonical graph, shapes and types inferred.
        include_fused: also observe tensors that feed nothing but a Relu or Clip.
    """
    model = graph.model.graph
    ranks = _float_ranks(model)
    consumers: dict[str, list[str]] = defaultdict(list)
    for node in model.node:
        for name in node.input:
            consumers[name].append(node.op_type)
    outputs = {value.name for value in model.output}
    tensors: list[str] = []
    aliases: dict[str, str] = {}
    fused: set[str] = set()
    axes: dict[str, int] = {}
    constants = {value.name for value in model.initializer}
    named = [(value.name, None) for value in model.input if value.name not in constants]
    produced = [(name, node) for node in model.node for name in node.output if name and node.op_type != "Constant"]
    for name, node in [*named, *produced]:
        if name not in ranks:
            continue
        if not include_fused and name not in outputs and consumers[name] and set(consumers[name]) <= FUSED:
            fused.add(name)
            continue
        source = aliases.get(node.input[0], node.input[0]) if node is not None and node.op_type in PERMUTING else ""
        if source in axes or source in tensors:
            aliases[name] = source
            continue
        tensors.append(name)
        rank = ranks[name]
        if rank >= 2:
            spatial = rank == 4 or SPATIAL & {node.op_type if node is not None else "", *consumers[name]}
            axes[name] = 1 if spatial else rank - 1
    return Observed(tuple(tensors), aliases, frozenset(fused), axes)


def _float_ranks(model: onnx.GraphProto) -> dict[str, int]:
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*model.input, *model.value_info, *model.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
