"""`for_hexagon`: all rewrites in their order, then tidied, checked and shape-inferred."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx

from edgedeploy.exporters.snpe.rewrites import (
    activations,
    clip,
    expand,
    gather,
    gelu,
    masks,
    norm,
    normalization,
    pooling,
    recurrent,
    transposed,
)
from edgedeploy.exporters.snpe.rewrites.editor import Editor
from edgedeploy.exporters.snpe.rewrites.faint import zero_faint_channels
from edgedeploy.exporters.snpe.rewrites.indices import narrow_indices
from edgedeploy.exporters.snpe.rewrites.tidy import tidy

Rule = Callable[[onnx.NodeProto, Editor], "list[onnx.NodeProto] | None"]

#: One rule an op type; each is told in docs/snapdragon.md.
RULES: dict[str, Rule] = {
    "AveragePool": pooling.average_pool,
    "Celu": activations.celu,
    "Clip": clip.clip,
    "ConvTranspose": transposed.ungroup,
    "Div": norm.normalize,
    "Expand": expand.expand,
    "GRU": recurrent.unroll,
    "Gather": gather.gather,
    "GroupNormalization": normalization.group_normalization,
    "LSTM": recurrent.unroll,
    "Mish": activations.mish,
    "Mul": gelu.gelu,
    "PRelu": activations.prelu,
    "RNN": recurrent.unroll,
    "Reciprocal": activations.reciprocal,
    "ReduceL2": norm.reduce_l2,
    "Selu": activations.selu,
    "Softsign": activations.softsign,
}


@dataclass(frozen=True)
class Rewritten:
    """The graph for Hexagon.

    Attributes:
        model: the rewritten model; the caller's is untouched.
        applied: number of nodes rewritten, by op type ("mask": inputs made float; "faint channel": channels zeroed).
        fed: the numpy dtype of each input that is fed in another type than the original graph's: "float32" for a
            mask of 0 and 1, "int32" for indices.

    """

    model: onnx.ModelProto
    applied: dict[str, int]
    fed: dict[str, str]


def for_hexagon(model: onnx.ModelProto) -> Rewritten:
    """Rewrite a static FP32 graph into ops that QNN takes and computes rightly; outputs are equal in FP32."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    applied: dict[str, int] = {}
    mask_names = masks.mask_inputs(copy)
    masks.float_masks(copy, mask_names)
    if mask_names:
        applied["mask"] = len(mask_names)
    index_names = narrow_indices(copy)
    if index_names:
        applied["index input"] = len(index_names)
    editor = Editor(copy)
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        rule = RULES.get(node.op_type)
        made = rule(node, editor) if rule else None
        if made is not None:
            applied[node.op_type] = applied.get(node.op_type, 0) + 1
        nodes += [node] if made is None else made
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    if zeroed := zero_faint_channels(copy):
        applied["faint channel"] = zeroed
    return Rewritten(
        tidy(copy), applied, {**dict.fromkeys(mask_names, "float32"), **dict.fromkeys(index_names, "int32")}
    )
