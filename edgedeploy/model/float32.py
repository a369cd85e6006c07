"""Half and double precision programs, taken in float32: the one precision that every later step starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


def other_floats(program: ExportedProgram) -> list[str]:
    """The float types other than float32 of weights, buffers and inputs ("float16"), sorted."""
    import torch
    from torch.export.graph_signature import InputKind

    inputs = {entry.arg.name for entry in program.graph_signature.input_specs if entry.kind is InputKind.USER_INPUT}
    values = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs]
    tensors = [value for value in (*program.state_dict.values(), *values) if isinstance(value, torch.Tensor)]
    found = {tensor.dtype for tensor in tensors if tensor.is_floating_point()} - {torch.float32}
    return sorted(str(dtype).removeprefix("torch.") for dtype in found)


def to_float32(module: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Bring weights, constants and every type that an operator names to float32, in place."""
    import torch
    from torch.fx.node import map_aggregate

    others = (torch.float16, torch.bfloat16, torch.float64)

    def swap(argument: Any) -> Any:
        return torch.float32 if argument in others and isinstance(argument, torch.dtype) else argument

    module.float()
    for part in module.modules():
        if not isinstance(part, torch.fx.GraphModule):
            continue
        for node in part.graph.nodes:
            node.args = map_aggregate(node.args, swap)
            node.kwargs = map_aggregate(node.kwargs, swap)
            if node.op == "get_attr":
                _constant_to_float32(part, str(node.target), others)
        part.recompile()
    return module


def _constant_to_float32(module: torch.nn.Module, path: str, others: tuple[torch.dtype, ...]) -> None:
    import torch

    *owners, name = path.split(".")
    owner: Any = module
    for word in owners:
        owner = getattr(owner, word)
    value = getattr(owner, name)
    if isinstance(value, torch.Tensor) and value.dtype in others:
        setattr(owner, name, value.float())
