"""One function per torch container: from the file to a module with known inputs."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from edgedeploy.errors import InputError
from edgedeploy.model.archive import damaged
from edgedeploy.model.binding import bind_by_signature, bind_positionally
from edgedeploy.model.exported_program import read_exported_program
from edgedeploy.model.finite import check_finite
from edgedeploy.model.options import LoadOptions
from edgedeploy.model.pickles import LEGACY_MAGIC, globals_of, refuse_unsafe, saved_globals
from edgedeploy.model.program_source import source_of_program
from edgedeploy.model.quiet import quiet
from edgedeploy.model.torch_source import TorchSource, example_values
from edgedeploy.model.weights import build, find_state_dict, fit, read_safetensors
from edgedeploy.tensors import TensorSpec

if TYPE_CHECKING:
    import torch

#: A file of the old (non-zip) torch.save is five pickles, then raw tensor bytes: magic number, protocol, system,
#: object, storage keys (torch.serialization._legacy_save).
_LEGACY_PICKLES = 5


def from_exported_program(path: Path, options: LoadOptions) -> TorchSource:
    """A ``.pt2`` archive carries its architecture and shapes."""
    program = read_exported_program(path, options.allow_globals, options.unsafe_load)
    return source_of_program(path, program, options.inputs)


def from_torchscript(path: Path, options: LoadOptions) -> TorchSource:
    """TorchScript carries its architecture but no shapes; it becomes an exported program, compared with the script."""
    import torch
    from torch._export.converter import TS2EPConverter

    inputs = _need_inputs(path, "TorchScript", options)
    with quiet():
        try:
            script = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise damaged(path, f"torch.jit.load: {str(error).strip().splitlines()[-1][:300]}") from error
        _refuse_plain_arguments(path, script)
        script.eval().float()
        check_finite(path, script)
        original = TorchSource(script, inputs, bind_positionally)
        values = tuple(example_values(original.inputs))
        try:
            with torch.no_grad():
                program = TS2EPConverter(script, values).convert()
        except Exception as error:
            raise InputError(
                f"torch cannot turn the TorchScript {str(path)!r} into an exported program.",
                found=f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}",
                remedy="Export the model from its Python source (torch.export.save) and give the .pt2.",
            ) from error
    # The converter leaves every size open, so the program itself is not used: it is exported again with known sizes.
    converted = TorchSource(program.module(check_guards=False), inputs, bind_positionally, fixed_when_made=True)
    sample = {spec.name: value.numpy() for spec, value in zip(original.inputs, values, strict=True)}
    expected, got = original.reference(sample), converted.reference(sample)
    same = expected.keys() == got.keys() and all(
        np.allclose(expected[name], got[name], rtol=1e-3, atol=1e-4, equal_nan=True) for name in expected
    )
    if not same:
        raise InputError(
            f"The TorchScript {str(path)!r} and its exported program give different outputs.",
            found="the script probably decides by the values it is given",
            remedy="Export the model from its Python source (torch.export.save) and give the .pt2.",
        )
    return converted


def _refuse_plain_arguments(path: Path, script: Any) -> None:
    """An int or a list that forward() wants is no input of a graph, and no ``--input`` can say it."""
    arguments = script.forward.schema.arguments[1:]
    plain = [
        f"{argument.name}: {argument.type}"
        for argument in arguments
        if "Tensor" not in str(argument.type) and not argument.has_default_value()
    ]
    if plain:
        raise InputError(
            f"forward() of the TorchScript {str(path)!r} takes what is no tensor.",
            found=", ".join(plain),
            remedy="Save a module around it that gives these arguments their values, with tensors as its only inputs.",
        )


def from_safetensors(path: Path, options: LoadOptions) -> TorchSource:
    """Safetensors holds weights only."""
    return _from_weights(path, read_safetensors(path), options)


def from_pickle(path: Path, options: LoadOptions, legacy: bool) -> tuple[str, TorchSource]:
    """What torch.save wrote: weights, a checkpoint, or a whole module that the user vouched for."""
    import torch

    if not options.unsafe_load:
        refuse_unsafe(path, pickle_globals(path, legacy), options.allow_globals)
    trusted = [] if options.unsafe_load else [_resolve(name) for name in sorted(options.allow_globals)]
    context = torch.serialization.safe_globals(cast("list[Any]", trusted)) if trusted else nullcontext()
    try:
        with context:
            content = torch.load(path, map_location="cpu", weights_only=not options.unsafe_load)
    except Exception as error:
        raise InputError(
            f"torch cannot load {str(path)!r}.",
            found=f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300] if str(error).strip() else ''}",
            remedy="Save model.state_dict() with torch.save, or the program with torch.export.save.",
        ) from error
    module = content if isinstance(content, torch.nn.Module) else None
    if module is None and isinstance(content, dict):
        module = next((value for value in content.values() if isinstance(value, torch.nn.Module)), None)
    if module is not None:
        return "pickled_module", _from_module(path, module, options)
    return "state_dict", _from_weights(path, find_state_dict(path, content), options)


def _from_weights(path: Path, weights: dict[str, Any], options: LoadOptions) -> TorchSource:
    if not options.factory:
        raise InputError(
            f"{str(path)!r} holds weights without an architecture.",
            found=f"{len(weights)} tensors: {', '.join(list(weights)[:4])} ...",
            remedy="Name a function that builds the model: --model package.module:callable.",
        )
    module = build(options.factory)
    note = fit(path, module, weights)
    return _from_module(path, module, options, note)


def _from_module(path: Path, module: torch.nn.Module, options: LoadOptions, note: str = "") -> TorchSource:
    inputs = _need_inputs(path, "A file without a graph", options)
    module.eval().float().requires_grad_(False)
    check_finite(path, module)
    source = TorchSource(module, inputs, bind_by_signature(module, inputs))
    if note:
        source.notes.append(note)
    return source


def _need_inputs(path: Path, what: str, options: LoadOptions) -> Sequence[TensorSpec]:
    if not options.inputs:
        raise InputError(
            f"{what} carries no input shapes, and none were given for {str(path)!r}.",
            remedy="Give them in the order of forward(): --input x:1x3x224x224:float32 (or [model] inputs).",
        )
    return options.inputs


def pickle_globals(path: Path, legacy: bool) -> dict[str, frozenset[str]]:
    """The globals of every pickle in a file of torch.save, by place; nothing is run.

    Raises:
        InputError: where the file is of another form than torch.save writes.
    """
    if not legacy:
        with path.open("rb") as file:
            return {"data.pkl": saved_globals(path, "the archive", file)}
    if _is_tar(path):
        raise damaged(path, "a tar archive, as torch before 0.1.10 wrote: load and save it again with a newer torch")
    try:
        with path.open("rb") as file:
            magic = file.read(len(LEGACY_MAGIC)) == LEGACY_MAGIC
            file.seek(0)
            return {"legacy pickle": globals_of(file, _LEGACY_PICKLES)} if magic else {"pickle": globals_of(file)}
    except ValueError as error:
        raise damaged(path, f"its pickle cannot be read ({error})") from None


def _is_tar(path: Path) -> bool:
    """torch.load tries tar first, whatever the bytes begin with."""
    try:
        with tarfile.open(path, "r:"):
            return True
    except Exception:  # tarfile raises many kinds for what is no tar
        return False


def _resolve(name: str) -> object:
    import importlib

    module_name, _, attribute = name.rpartition(".")
    if not all(word.isidentifier() for word in name.split(".")) or not module_name:
        raise InputError(
            f"--allow-global {name!r} is no dotted name.", remedy="Write package.module.Class, as the refusal lists it."
        )
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # importing runs whatever the package does
        raise InputError(
            f"--allow-global {name!r} names nothing that can be imported.",
            found=str(error),
            remedy="Install the package that defines it, or run the command in its folder.",
        ) from error
