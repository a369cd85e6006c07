"""Two forms of an exported program that torch.onnx does not translate, written as it does.

A ``view``, and what a ``reshape`` is traced to, is sound for the strides of its tracing; torch.onnx's decompositions
give others (T5, Swin: "Cannot view a tensor with shape ..."). Both get a contiguous copy, which ONNX, without strides,
does not see. Attention is translated with a head axis only.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def translatable(program: ExportedProgram) -> ExportedProgram | None:
    """A copy with these forms rewritten; ``None`` where there is none of them."""
    import torch

    aten = torch.ops.aten
    views = (aten.view.default, aten._unsafe_view.default, aten.reshape.default)
    attention = aten.scaled_dot_product_attention.default

    def rewritten(node: Any) -> bool:
        return node.target in views or (node.target is attention and _rank(node.args[0]) == 3)

    if not any(rewritten(node) for node in program.graph.nodes):
        return None
    result = copy.deepcopy(program)
    graph = result.graph
    for node in list(graph.nodes):
        if node.target in views:
            _of_a_copy(graph, node)
        elif node.target is attention and _rank(node.args[0]) == 3:
            _with_head_axis(graph, node)
    result.graph_module.recompile()
    return result


def _of_a_copy(graph: Any, node: Any) -> None:
    import torch

    source = node.args[0]
    with graph.inserting_before(node):
        copied = graph.call_function(
            torch.ops.aten.clone.default, (source,), {"memory_format": torch.contiguous_format}
        )
    copied.meta = {**node.meta, "val": source.meta["val"].contiguous()}
    node.replace_input_with(source, copied)


def _with_head_axis(graph: Any, node: Any) -> None:
    import torch

    aten = torch.ops.aten

    def headed(value: Any) -> Any:
        if getattr(value, "meta", None) is None or _rank(value) != 3:
            return value
        with graph.inserting_before(node):
            made = graph.call_function(aten.unsqueeze.default, (value, 1))
        made.meta = {**value.meta, "val": value.meta["val"].unsqueeze(1)}
        return made

    node.args = tuple(headed(value) for value in node.args)
    node.kwargs = {name: headed(value) for name, value in node.kwargs.items()}
    before = node.meta["val"]
    node.meta["val"] = before.unsqueeze(1)
    with graph.inserting_after(node):
        result = graph.call_function(aten.squeeze.dim, (node, 1))
    result.meta = {**node.meta, "val": before}
    node.replace_all_uses_with(result, delete_user_cb=lambda user: user is not result)


def _rank(value: Any) -> int:
    return len(value.meta["val"].shape)
