"""An ExportedProgram as a source: its own input names and shapes, brought to a batch of one where that is sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.errors import InputError
from edgedeploy.model.finite import check_finite
from edgedeploy.model.float32 import other_floats, to_float32
from edgedeploy.model.program_checks import is_recurrent, refuse_memory
from edgedeploy.model.torch_source import Arguments, Bind, TorchSource, example_values, rows_agree
from edgedeploy.tensors import Dimension, TensorSpec

if TYPE_CHECKING:
    import torch
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

    refuse_memory(program)
    module = program.module(check_guards=False)
    check_finite(path, module)
    others = other_floats(program)
    if others:
        specs = [_as_float32(spec) for spec in specs]
        source = _source(to_float32(module), specs, bind, None)
        source.notes.append(f"the file is in {' and '.join(others)}; it is taken in float32")
        return source
    return _source(module, specs, bind, program)


def _source(
    module: torch.fx.GraphModule, specs: Sequence[TensorSpec], bind: Bind, program: ExportedProgram | None
) -> TorchSource:
    if all(spec.is_static for spec in specs):
        fixed = _fixed_batch(specs)
        if fixed > 1:
            return _rebatched(module, specs, bind, fixed)
        return TorchSource(module, specs, bind, program=program, fixed_when_made=True)
    return TorchSource(module, specs, bind)


def _as_float32(spec: TensorSpec) -> TensorSpec:
    return replace(spec, dtype="float32") if spec.dtype in ("float16", "bfloat16", "float64") else spec


def _fixed_batch(specs: Sequence[TensorSpec]) -> int:
    """The first axis that all inputs share, if there is one: most likely the batch the program was traced with."""
    firsts = {spec.shape[0] for spec in specs if len(spec.shape) > 1}
    return int(firsts.pop()) if len(firsts) == 1 else 1


def _rebatched(module: torch.fx.GraphModule, specs: Sequence[TensorSpec], bind: Bind, batch: int) -> TorchSource:
    """Take a program of a fixed batch with a batch of 1 where that computes the same, else as it is."""
    batched = [len(spec.shape) > 1 for spec in specs]
    one = [TensorSpec(spec.name, (1, *spec.shape[1:]), spec.dtype) if is_batched else spec
           for spec, is_batched in zip(specs, batched, strict=True)]  # fmt: skip
    if is_recurrent(module.graph):  # a state of another batch is not checked by torch's kernels
        return _kept(module, specs, bind, batch)
    hooks = dict(module._forward_pre_hooks)
    module._forward_pre_hooks.clear()  # torch's check that inputs have the exported sizes
    if rows_agree(module, module, bind, example_values(specs), batched):
        source = TorchSource(module, one, bind, fixed_when_made=True)
        source.notes.append(f"the file was exported with a batch of {batch}; it is taken with a batch of 1")
    else:
        module._forward_pre_hooks.update(hooks)
        return _kept(module, specs, bind, batch)
    return source


def _kept(module: torch.nn.Module, specs: Sequence[TensorSpec], bind: Bind, batch: int) -> TorchSource:
    source = TorchSource(module, specs, bind)
    source.notes.append(f"the batch is {batch}: the file was exported with it, and its reshapes or states rely on it")
    return source


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
