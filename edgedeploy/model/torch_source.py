"""A torch model with known inputs: exported on demand, with a batch of one or of any size, and run for reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.errors import InputError
from edgedeploy.model.naming import output_names
from edgedeploy.model.program_checks import fixed_states, refuse_memory
from edgedeploy.model.quiet import quiet
from edgedeploy.tensors import TensorSpec

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch.export import ExportedProgram

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Bind = Callable[[Sequence[Any]], Arguments]
"""Puts one value per input, in the order of the inputs, where ``forward`` wants it."""

#: A dynamic batch is traced with 2: torch specializes a size of 1.
_TRACED_BATCH = 2


class TorchSource:
    """A module in eval mode on the CPU.

    Args:
        module: what to run and export.
        inputs: in order; a first axis of 1 or "batch" is the batch.
        bind: how the inputs are passed.
        program: an ExportedProgram of exactly these inputs with a batch of 1, where there is one already.
        fixed_when_made: the module is itself a trace at one batch size, which it may rely on.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        inputs: Sequence[TensorSpec],
        bind: Bind,
        program: ExportedProgram | None = None,
        fixed_when_made: bool = False,
    ) -> None:
        self._module = module
        self._bind = bind
        self.inputs = tuple(TensorSpec(spec.name, _sizes(spec, 1), spec.dtype) for spec in inputs)
        self.batched = tuple(bool(spec.shape) and spec.shape[0] in (1, "batch") for spec in inputs)
        self._programs: dict[bool, ExportedProgram] = {} if program is None else {False: program}
        self._was_fixed = fixed_when_made or program is not None
        self.notes: list[str] = []
        self._example: list[torch.Tensor] = []
        self._outputs: tuple[TensorSpec, ...] = ()
        self._failure: InputError | None = None
        self._learn_from_made_up()

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Learnt by running once.

        Raises:
            InputError: where the model runs on no made-up values, and `learn` was not given any of the user's.
        """
        if self._failure is not None:
            raise self._failure
        return self._outputs

    @property
    def example(self) -> dict[str, NDArray[np.generic]]:
        """One sample on which the model runs."""
        if self._failure is not None:
            raise self._failure
        return {spec.name: value.numpy() for spec, value in zip(self.inputs, self._example, strict=True)}

    def learn(self, sample: Mapping[str, NDArray[np.generic]]) -> None:
        """Take one of the user's samples as the example, in the place of made-up values.

        Raises:
            InputError: where the model does not run on it.
        """
        import torch

        example = [torch.from_numpy(np.array(sample[spec.name])) for spec in self.inputs]
        if self._failure is not None:
            self._outputs = self._try(example)
            self._failure = None
        self._example = example

    def module(self) -> torch.nn.Module:
        """The module itself."""
        return self._module

    def arguments(self, values: Sequence[Any]) -> Arguments:
        """How values, one per input in order, reach the module."""
        return self._bind(values)

    def program(self, dynamic_batch: bool) -> ExportedProgram:
        """The exported program; made once for each kind of batch.

        Raises:
            InputError: where torch cannot export the model.
        """
        if dynamic_batch and not any(self.batched):
            dynamic_batch = False
        if dynamic_batch not in self._programs:
            self._programs[dynamic_batch] = self._export(dynamic_batch)
        return self._programs[dynamic_batch]

    def reference(self, sample: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """Run the module on one sample; float outputs are float32."""
        import torch
        from torch.utils import _pytree as pytree

        values = [torch.from_numpy(np.array(sample[spec.name])) for spec in self.inputs]
        args, kwargs = self._bind(values)
        with torch.no_grad():
            leaves = pytree.tree_leaves(self._module(*args, **kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        return {spec.name: _array(tensor) for spec, tensor in zip(self.outputs, tensors, strict=True)}

    def _learn_from_made_up(self) -> None:
        """Run once on made-up values: learns the outputs and finds wrong inputs before anything is exported.

        What an integer means is not known: 1 opens a mask, and only 0 is a valid index of every table. Where neither
        runs, the user's data decide.
        """
        integers = any(not spec.dtype.startswith(("float", "bfloat")) for spec in self.inputs)
        for fill in (1, 0) if integers else (1,):
            example = example_values(self.inputs, fill)
            try:
                self._outputs = self._try(example)
            except InputError as error:
                self._failure = self._failure or error
            else:
                self._example, self._failure = example, None
                return
        if self._failure is not None and (not integers or isinstance(self._failure.__cause__, TypeError)):
            raise self._failure  # no other values of these inputs would run

    def _try(self, values: Sequence[torch.Tensor]) -> tuple[TensorSpec, ...]:
        import torch
        from torch.utils import _pytree as pytree

        args, kwargs = self._bind([value.clone() for value in values])
        try:
            with torch.no_grad():
                result = self._module(*args, **kwargs)
        except Exception as error:
            given = ", ".join(map(str, self.inputs))
            raise InputError(
                "The model does not run on the inputs it was given.",
                found=f"inputs {given}; {type(error).__name__}: {_first_lines(error)}",
                remedy="Name the inputs in the order of forward(), e.g. --input x:1x3x224x224:float32; "
                "token ids and masks are int64.",
            ) from error
        leaves = pytree.tree_leaves(result)
        names = output_names(result, taken=[spec.name for spec in self.inputs])
        kept = [(name, leaf) for name, leaf in zip(names, leaves, strict=True) if isinstance(leaf, torch.Tensor)]
        if not kept:
            raise InputError("The model returns no tensor.", found=type(result).__name__)
        return tuple(
            TensorSpec(name, tuple(tensor.shape), str(_array(tensor[:0] if tensor.ndim else tensor).dtype))
            for name, tensor in kept
        )

    def _export(self, dynamic_batch: bool) -> ExportedProgram:
        import torch

        values = self._traced_with(_TRACED_BATCH if dynamic_batch else 1)
        args, kwargs = self._bind(values)
        shapes: Any = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
        if dynamic_batch:
            dimension = torch.export.Dim("batch")
            for value, is_batched in zip(values, self.batched, strict=True):
                if is_batched:
                    shapes[value] = {0: dimension}
        try:
            with torch.no_grad(), quiet():
                program = torch.export.export(
                    self._module, args, kwargs, dynamic_shapes=shapes if dynamic_batch else None, strict=False
                )
                if dynamic_batch and self._was_fixed:
                    self._require_open_batch(program, values)
        except Exception as error:
            if dynamic_batch:
                self.notes.append(f"the batch is fixed to 1: it cannot be any size ({_first_lines(error, 1)})")
                return self.program(False)
            raise InputError(
                "torch.export cannot capture this model.",
                found=f"{type(error).__name__}: {_first_lines(error)}",
                remedy="Export it yourself (the error of torch.export.export names the line) and give the .pt2.",
            ) from error
        refuse_memory(program)
        return program

    def _traced_with(self, batch: int) -> list[torch.Tensor]:
        """Values to trace with: floats made up, integers those of the example in every row."""
        sized = [
            TensorSpec(spec.name, _sizes(spec, batch), spec.dtype) if is_batched else spec
            for spec, is_batched in zip(self.inputs, self.batched, strict=True)
        ]
        values = example_values(sized)
        for index, example in enumerate(self._example):
            if not example.is_floating_point():
                values[index] = example.expand(values[index].shape).clone()
        return values

    def _require_open_batch(self, program: ExportedProgram, values: Sequence[torch.Tensor]) -> None:
        """Refuse, as the exporter would, a program traced at one size that has that size built in."""
        states = fixed_states(program)
        if states:  # not to be run: torch's kernels would write past the state's end
            raise ValueError(
                f"the file was exported with a fixed batch, which the initial state of its {states[0]} has"
            )
        whole = program.module(check_guards=False)
        if not rows_agree(whole, self._module, self._bind, values, self.batched):
            raise ValueError("the file was exported with a fixed batch, which its reshapes rely on")


def rows_agree(
    whole: torch.nn.Module, single: torch.nn.Module, bind: Bind, values: Sequence[Any], batched: Sequence[bool]
) -> bool:
    """True where ``whole`` on a batch gives what ``single`` gives row by row.

    A graph traced at one batch size may have it built into its reshapes.
    """
    import torch
    from torch.utils import _pytree as pytree

    def run(module: torch.nn.Module, inputs: Sequence[Any]) -> list[Any]:
        args, kwargs = bind(inputs)
        with torch.no_grad():
            return pytree.tree_leaves(module(*args, **kwargs))

    size = next(value.shape[0] for value, is_batched in zip(values, batched, strict=True) if is_batched)
    try:
        together = run(whole, values)
        for row in range(size):
            one = [v[row : row + 1] if is_batched else v for v, is_batched in zip(values, batched, strict=True)]
            for batch, alone in zip(together, run(single, one), strict=True):
                if not isinstance(batch, torch.Tensor) or not batch.ndim:
                    continue
                expected = batch if batch.shape[0] != size else batch[row : row + 1]
                if expected.shape != alone.shape:
                    return False
                if not torch.allclose(expected.float(), alone.float(), rtol=1e-3, atol=1e-4):
                    return False
    except (RuntimeError, ValueError, IndexError):
        return False
    return True


def example_values(inputs: Sequence[TensorSpec], fill: int = 1) -> list[torch.Tensor]:
    """Made-up values, always the same: normal floats; ``fill`` for integers (1 opens a mask)."""
    import torch

    generator = torch.Generator().manual_seed(0)
    values = []
    for spec in inputs:
        dtype: torch.dtype = getattr(torch, spec.dtype)
        size = [int(axis) for axis in spec.shape]
        floating = dtype.is_floating_point
        values.append(
            torch.randn(size, generator=generator).to(dtype) if floating else torch.full(size, fill, dtype=dtype)
        )
    return values


def _sizes(spec: TensorSpec, batch: int) -> tuple[int, ...]:
    return tuple(batch if axis == 0 and size in (1, "batch") else int(size) for axis, size in enumerate(spec.shape))


def _array(tensor: torch.Tensor) -> NDArray[np.generic]:
    import torch

    tensor = tensor.detach()
    array: NDArray[np.generic] = (tensor.to(torch.float32) if tensor.is_floating_point() else tensor).numpy()
    return array


def _first_lines(error: BaseException, count: int = 3) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > count and any("TorchScript interpreter" in line for line in lines[:count]):
        # The interpreter's trace comes first; what was raised stands at its end.
        return f"{lines[-1]} (raised in the TorchScript interpreter)"[:500]
    return " / ".join(lines[:count])[:500] or type(error).__name__
