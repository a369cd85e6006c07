"""Executes a saved MIL program op by op: float32 kernels, each result rounded to the type the program declares.

It shows what the program computes, not what Apple's compiler makes of it: fusion, accumulation order and placement
on a Neural Engine are not exercised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from edgedeploy.errors import EdgeDeployError, InputError, UnsupportedOpError
from edgedeploy.targets.coreml.package import Package, open_package
from edgedeploy.targets.coreml.program import Block, Constant, Named, Operation, read_function
from edgedeploy.targets.coreml.registry import TORCH, Call, Kernel, kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

Observer = Callable[[Operation, int, Tensor], None]
"""Sees (operation, output index, value before rounding) of every tensor an operation computes."""


class Executor:
    """A loaded program, ready to run; constants and compressed weights are expanded once.

    Args:
        package: an opened package or the path of one.
        precision: "float16" rounds as the program declares; "float32" computes the same program without rounding
            to float16, which shows how much of an error is rounding.
        function: entry point.
        observer: sees every computed tensor before it is rounded.

    Raises:
        InputError: for a damaged package.
        UnsupportedOpError: naming every op that has no kernel here.
    """

    def __init__(
        self,
        package: Package | Path,
        *,
        precision: Literal["float16", "float32"] = "float16",
        function: str = "main",
        observer: Observer | None = None,
    ) -> None:
        self.package = package if isinstance(package, Package) else open_package(package)
        self.function = read_function(self.package, function)
        self.observer = observer
        self._half = torch.float16 if precision == "float16" else torch.float32
        self._kernels = kernels()
        _refuse_unknown(self.function.block, self._kernels)
        self.constants: dict[str, Any] = {}
        self._plans: dict[int, tuple[tuple[Operation, tuple[str, ...]], ...]] = {}
        self.state: dict[str, Tensor] = {}
        with torch.inference_mode():
            self._prepare(self.function.block)
        self._reset_state()
        self.live_bytes = 0
        self.peak_bytes = 0
        """Most bytes of activations that were alive at once in the runs so far, weights not counted."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Run once; names, shapes and dtypes as the program declares them.

        Returns:
            Arrays by output name; for a classifier, also the label (str or int) and the probabilities by label.

        Raises:
            InputError: for an input or an operation that does not fit its declaration.
        """
        self.live_bytes = 0
        with torch.inference_mode():
            values = {
                port.name: self._input(port, inputs) for port in self.function.inputs if port.type.kind != "state"
            }
            unknown = set(inputs) - set(values)
            if unknown:
                raise InputError(f"The program has no input {sorted(unknown)}.", found=f"its inputs: {sorted(values)}")
            results = self._run_block(self.function.block, values)
        return {name: _output(result) for name, result in zip(self.function.block.outputs, results, strict=True)}

    def reset(self) -> None:
        """Set every state of a stateful program back to zeros."""
        self._reset_state()

    def _reset_state(self) -> None:
        for port in self.function.inputs:
            if port.type.kind == "state":
                shape = [size or 1 for size in port.type.shape or ()]
                self.state[port.name] = torch.zeros(shape, dtype=self._storage(port.type.dtype))

    def _storage(self, dtype: str) -> torch.dtype:
        return self._half if dtype == "float16" else TORCH[dtype]

    def _prepare(self, block: Block) -> None:
        """Evaluate constants and plan, for each other operation, which values nobody reads after it."""
        run_time = []
        for operation in block.operations:
            if operation.type.startswith("const"):
                results = self._execute(operation, {}, constant=True)
                self.constants |= dict(zip((output.name for output in operation.outputs), results, strict=True))
            else:
                run_time.append(operation)
                for nested in operation.blocks:
                    self._prepare(nested)
        last: dict[str, int] = {port.name: -1 for port in block.inputs}
        for index, operation in enumerate(run_time):
            last |= {output.name: index for output in operation.outputs}
            last |= {name: index for name in operation.references() if name in last}
        for name in block.outputs:
            last.pop(name, None)
        plan = []
        for index, operation in enumerate(run_time):
            plan.append((operation, tuple(name for name, use in last.items() if use == index)))
        self._plans[id(block)] = tuple(plan)

    def _run_block(self, block: Block, values: dict[str, Any]) -> list[Any]:
        for operation, finished in self._plans[id(block)]:
            results = self._execute(operation, values)
            for output, result in zip(operation.outputs, results, strict=True):
                values[output.name] = result
                self.live_bytes += _bytes(result)
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)
            for name in finished:
                self.live_bytes -= _bytes(values.pop(name, None))
        return [self._lookup(name, values) for name in block.outputs]

    def _lookup(self, name: str, values: Mapping[str, Any]) -> Any:
        if name in values:
            return values[name]
        if name in self.constants:
            return self.constants[name]
        if name in self.state:
            return name
        raise InputError(f"The program reads {name!r}, which nothing produces.")

    def _execute(self, operation: Operation, values: dict[str, Any], *, constant: bool = False) -> list[Any]:
        operands: dict[str, Any] = {}
        for key, given in operation.inputs.items():
            found = [
                _constant(operand.value) if isinstance(operand, Constant) else self._lookup(operand.name, values)
                for operand in given
            ]
            operands[key] = found[0] if len(found) == 1 else found

        def nested(block: Block, arguments: Sequence[Any]) -> list[Any]:
            names = (port.name for port in block.inputs)
            return self._run_block(block, {**values, **dict(zip(names, arguments, strict=True))})

        rounding = self._rounding(operation)
        call = Call(operation, operands, rounding, nested)
        if operation.type in ("read_state", "write_state", "coreml_update_state"):
            results = self._state_op(call)
        else:
            try:
                results = self._kernels[operation.type](call)
            except EdgeDeployError:
                raise
            except (RuntimeError, IndexError, ValueError, TypeError, KeyError) as error:
                raise call.wrong(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
        results = results if isinstance(results, tuple) else (results,)
        if len(results) < len(operation.outputs):
            raise call.wrong(f"{len(operation.outputs)} outputs are declared, it has {len(results)}")
        return [
            self._store(call, index, result, watched=not constant)
            for index, (_, result) in enumerate(zip(operation.outputs, results, strict=False))
        ]

    def _rounding(self, operation: Operation) -> torch.dtype:
        for output in operation.outputs:
            if output.type.kind == "tensor" and output.type.dtype != "string":
                return self._storage(output.type.dtype)
        return torch.float32

    def _store(self, call: Call, index: int, result: Any, *, watched: bool) -> Any:
        """Check a result against its declaration and round it to the declared type."""
        port = call.operation.outputs[index]
        if not isinstance(result, Tensor) or port.type.kind != "tensor":
            return result
        declared = port.type.shape
        if declared is not None and (
            len(declared) != result.dim()
            or any(size not in (None, actual) for size, actual in zip(declared, result.shape, strict=True))
        ):
            raise call.wrong(f"output {port.name!r} is declared {port.type}, the result has {list(result.shape)}")
        target = self._storage(port.type.dtype)
        if result.is_floating_point() != target.is_floating_point and call.operation.type != "cast":
            raise call.wrong(f"output {port.name!r} is declared {port.type}, the result is {result.dtype}")
        if watched and self.observer is not None:
            self.observer(call.operation, index, result)
        return result if result.dtype == target else result.to(target)

    def _state_op(self, call: Call) -> Any:
        key = "state" if call.has("state") else "input"
        name = call.text(key)
        if name not in self.state:
            raise call.wrong(f"{name!r} is not a state of this program")
        if call.operation.type != "read_state":
            key = "value" if call.has("value") else "data"
            self.state[name] = call.raw(key).to(self.state[name].dtype).clone()
        return self.state[name].clone() if call.operation.type != "write_state" else ()

    def _input(self, port: Named, inputs: Mapping[str, NDArray[Any]]) -> Tensor:
        if port.name not in inputs:
            raise InputError(f"Input {port.name!r} of the Core ML program is missing.", found=f"{sorted(inputs)}")
        array = np.asarray(inputs[port.name])
        declared = port.type.shape
        fits = declared is None or (
            len(declared) == array.ndim
            and all(size in (None, actual) for size, actual in zip(declared, array.shape, strict=True))
        )
        if not fits or str(array.dtype) != port.type.dtype:
            raise InputError(
                f"Input {port.name!r} does not fit the Core ML program.",
                found=f"{array.dtype}{list(array.shape)}",
                remedy=f"Give {port.type}.",
            )
        tensor = torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
        return tensor.to(self._storage(port.type.dtype))


def _constant(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, np.generic):
        return torch.from_numpy(np.asarray(value))
    if isinstance(value, list) and value and isinstance(value[0], (np.ndarray, np.generic)):
        return [_constant(item) for item in value]
    return value


def _output(value: Any) -> Any:
    return value.detach().clone().numpy() if isinstance(value, Tensor) else value


def _bytes(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0


def _refuse_unknown(block: Block, known: Mapping[str, Kernel]) -> None:
    states = {"read_state", "write_state", "coreml_update_state"}

    def walk(inner: Block) -> list[tuple[str, str, str]]:
        found = []
        for operation in inner.operations:
            if operation.type not in known and operation.type not in states:
                found.append((operation.type, operation.name, ""))
            for nested in operation.blocks:
                found += walk(nested)
        return found

    unknown = walk(block)
    if unknown:
        raise UnsupportedOpError("the Core ML reference executor", unknown, [*known, *states])
