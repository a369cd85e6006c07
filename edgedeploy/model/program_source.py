"""An ExportedProgram as a source: its own input names and shapes, brought to a batch of one where that is sound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.errors import InputError
from edgedeploy.model.finite import check_finite
from edgedeploy.model.torch_source import Arguments, TorchSource
from edgedeploy.tensors import Dimension, TensorSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def source_of_program(path: Path, program: ExportedProgram, given: Sequence[TensorSpec] = ()) -> TorchSource:
    """Wrap a loaded program.

    Args:
        path: for messages.
        program: as torch.export.load gave it.
        given: ``--input`` sizes for axes, other than the batch, that the program leaves open.

    Raises:
        InputError: where an axis other than the batch has no size, or ``given`` does not fit.
    """
    from torch.utils import _pytree as pytree

    specs, constants = _user_inputs(path, program, given)
    in_spec = program.call_spec.in_spec

    def bind(values: Sequence[Any]) -> Arguments:
        pending = iter(values)
        flat = [next(pending) if constant is _TENSOR else constant for constant in constants]
        args, kwargs = pytree.tree_unflatten(flat, in_spec)
        return tuple(args), dict(kwargs)

    module = program.module(check_guards=False)
    check_finite(path, module)
    static = all(spec.is_static for spec in specs)
    one = [TensorSpec(spec.name, (1, *spec.shape[1:]) if spec.shape[:1] == ("batch",) else spec.shape, spec.dtype)
           for spec in specs]  # fmt: skip
    return TorchSource(module, one, bind, program=program if static else None)


_TENSOR = object()


def _user_inputs(
    path: Path, program: ExportedProgram, given: Sequence[TensorSpec]
) -> tuple[list[TensorSpec], list[Any]]:
    from torch.export.graph_signature import InputKind, TensorArgument

    said = {spec.name: spec for spec in given}
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    specs: list[TensorSpec] = []
    constants: list[Any] = []
    for entry in program.graph_signature.input_specs:
        if entry.kind is not InputKind.USER_INPUT:
            continue
        if not isinstance(entry.arg, TensorArgument):
            constants.append(getattr(entry.arg, "value", None))
            continue
        constants.append(_TENSOR)
        value = nodes[entry.arg.name].meta["val"]
        dtype = str(value.dtype).removeprefix("torch.")
        shape: list[Dimension] = [size if isinstance(size, int) else "" for size in value.shape]
        if shape and shape[0] == "":
            shape[0] = "batch"
        specs.append(_settle(path, TensorSpec(entry.arg.name, tuple(shape), dtype), said.pop(entry.arg.name, None)))
    if said:
        raise InputError(
            f"--input names {', '.join(map(repr, said))}, which {str(path)!r} does not have.",
            found=f"its inputs are {', '.join(map(str, specs))}",
        )
    return specs, constants


def _settle(path: Path, spec: TensorSpec, given: TensorSpec | None) -> TensorSpec:
    """Fill open axes from what the user gave; both must agree on the others."""
    if given is not None:
        fits = len(given.shape) == len(spec.shape) and all(
            own in ("", "batch", size) or (axis == 0 and size == "batch")
            for axis, (own, size) in enumerate(zip(spec.shape, given.shape, strict=True))
        )
        if given.dtype != spec.dtype or not fits:
            raise InputError(
                f"--input {given} does not fit {str(path)!r}.",
                found=f"the file says {spec}",
                remedy="Leave --input away: a .pt2 carries its shapes; give sizes only for its open axes.",
            )
        return TensorSpec(spec.name, (spec.shape[0], *given.shape[1:]) if spec.shape else (), spec.dtype)
    if "" in spec.shape:
        wanted = "x".join(str(size or "SIZE") for size in spec.shape)
        raise InputError(
            f"Input {spec.name!r} of {str(path)!r} has axes of no fixed size.",
            found=str(spec),
            remedy=f"State them: --input {spec.name}:{wanted}:{spec.dtype}",
        )
    return spec
