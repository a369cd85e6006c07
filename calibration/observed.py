"""Which tensors of a graph need statistics of their own, and which share another's."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import onnx

from edgedeploy.graph.graph import Graph

#: Ops that move or reshape every value of their first input exactly once: the output's statistics are the input's.
PERMUTING = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity"})

#: Activations that pass a part of their input unchanged: what else reads nothing of it need not be represented.
CLIPPING = frozenset({"Relu", "Clip"})

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
        clipped: tensors that only Relu or Clip read, with those ops' outputs, whose ranges are theirs; backends fuse
            the pair, and observing the tensor between would cost time and the runtime's own fusion.
        channel_axis: axis of the channels of each observed tensor; absent where it has none.
    """

    tensors: tuple[str, ...]
    aliases: dict[str, str]
    clipped: dict[str, tuple[str, ...]]
    channel_axis: dict[str, int]


def observed_tensors(graph: Graph) -> Observed:
    """Choose the tensors of a graph that can be quantized; its shapes and types must be inferred."""
    model = graph.model.graph
    ranks = _float_ranks(model)
    consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.node:
        for name in node.input:
            consumers[name].append(node)
    outputs = {value.name for value in model.output}
    tensors: list[str] = []
    aliases: dict[str, str] = {}
    clipped: dict[str, tuple[str, ...]] = {}
    axes: dict[str, int] = {}
    constants = {value.name for value in model.initializer}
    named = [(value.name, None) for value in model.input if value.name not in constants]
    produced = [(name, node) for node in model.node for name in node.output if name and node.op_type != "Constant"]
    for name, node in [*named, *produced]:
        if name not in ranks:
            continue
        readers = {reader.op_type for reader in consumers[name]}
        if node is not None and name not in outputs and readers and readers <= CLIPPING:
            clipped[name] = tuple(reader.output[0] for reader in consumers[name])
            continue
        source = aliases.get(node.input[0], node.input[0]) if node is not None and node.op_type in PERMUTING else ""
        if source in axes or source in tensors:
            aliases[name] = source
            continue
        tensors.append(name)
        rank = ranks[name]
        if rank >= 2:
            spatial = rank == 4 or SPATIAL & {node.op_type if node is not None else "", *readers}
            axes[name] = 1 if spatial else rank - 1
    return Observed(tuple(tensors), aliases, clipped, axes)


def _float_ranks(model: onnx.GraphProto) -> dict[str, int]:
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*model.input, *model.value_info, *model.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
