"""A MIL program as plain frozen data: types, operands, operations and blocks, read once from the protobuf.

Source: ``MIL.proto`` of the Core ML model format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgedeploy.errors import InputError
from edgedeploy.targets.coreml.dtypes import BY_MIL
from edgedeploy.targets.coreml.package import Package
from edgedeploy.targets.coreml.values import constant


@dataclass(frozen=True)
class ValueType:
    """What the program declares of a value.

    Attributes:
        kind: "tensor", "list", "tuple", "dictionary" or "state".
        dtype: of a tensor (or of the tensor a state wraps), a name of `dtypes`; "" otherwise.
        shape: ``None`` for a size known only at run time; ``None`` as a whole where even the rank is unknown.
    """

    kind: str
    dtype: str = ""
    shape: tuple[int | None, ...] | None = None

    def __str__(self) -> str:
        sizes = "x".join("?" if size is None else str(size) for size in self.shape or ())
        return f"{self.dtype}[{sizes}]" if self.kind == "tensor" else self.kind


@dataclass(frozen=True)
class Ref:
    """An operand that another operation (or an input) produces."""

    name: str


@dataclass(frozen=True)
class Constant:
    """An operand written into the operation itself: numpy array, str, bool, or list of those."""

    value: Any


Operand = Ref | Constant


@dataclass(frozen=True)
class Named:
    """A name with its declared type."""

    name: str
    type: ValueType


@dataclass(frozen=True)
class Block:
    """A straight list of operations; the body of a function, a branch or a loop."""

    inputs: tuple[Named, ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]


@dataclass(frozen=True)
class Operation:
    """One operation; ``inputs`` may hold several operands under one name (``concat``'s values)."""

    type: str
    name: str
    inputs: Mapping[str, tuple[Operand, ...]]
    outputs: tuple[Named, ...]
    blocks: tuple[Block, ...]

    def references(self) -> Iterator[str]:
        """Names it reads, its blocks' included."""
        for operands in self.inputs.values():
            yield from (operand.name for operand in operands if isinstance(operand, Ref))
        for block in self.blocks:
            yield from block.outputs
            for operation in block.operations:
                yield from operation.references()


@dataclass(frozen=True)
class Function:
    """An entry point of a program; ``opset`` such as "CoreML7"."""

    inputs: tuple[Named, ...]
    opset: str
    block: Block


def read_function(package: Package, name: str = "main") -> Function:
    """Parse one function of the package's program; `InputError` where it has none of that name."""
    program = package.spec.mlProgram
    if name not in program.functions:
        raise InputError(
            f"The program has no function {name!r}.", remedy=f"Choose one of: {', '.join(sorted(program.functions))}."
        )
    function = program.functions[name]
    if function.opset not in function.block_specializations:
        raise InputError(
            f"Function {name!r} has no block for its own opset {function.opset!r}.", remedy="Export the package again."
        )
    inputs = tuple(Named(value.name, _type(value.type)) for value in function.inputs)
    return Function(inputs, function.opset, _block(package, function.block_specializations[function.opset]))


def _block(package: Package, proto: Any) -> Block:
    return Block(
        tuple(Named(value.name, _type(value.type)) for value in proto.inputs),
        tuple(proto.outputs),
        tuple(_operation(package, operation) for operation in proto.operations),
    )


def _operation(package: Package, proto: Any) -> Operation:
    inputs: dict[str, tuple[Operand, ...]] = {
        key: tuple(_operand(package, binding) for binding in argument.arguments)
        for key, argument in proto.inputs.items()
    }
    # Constants keep their value, and iOS 16 constexpr ops all their parameters, as attributes.
    for key, value in proto.attributes.items():
        if key != "name":
            inputs.setdefault(key, (Constant(constant(package, value)),))
    outputs = tuple(Named(output.name, _type(output.type)) for output in proto.outputs)
    name = constant(package, proto.attributes["name"]) if "name" in proto.attributes else ""
    blocks = tuple(_block(package, block) for block in proto.blocks)
    return Operation(proto.type, str(name or (outputs[0].name if outputs else proto.type)), inputs, outputs, blocks)


def _operand(package: Package, binding: Any) -> Operand:
    if binding.WhichOneof("binding") == "name":
        return Ref(binding.name)
    return Constant(constant(package, binding.value))


def _type(proto: Any) -> ValueType:
    kind = str(proto.WhichOneof("type") or "tensorType").removesuffix("Type")
    if kind == "state":
        wrapped = _type(proto.stateType.wrappedType)
        return ValueType("state", wrapped.dtype, wrapped.shape)
    if kind != "tensor":
        return ValueType(kind)
    tensor = proto.tensorType
    if tensor.dataType not in BY_MIL:
        raise InputError(f"The program uses the tensor type number {tensor.dataType}, which is not known here.")
    sizes: list[int | None] = []
    for dimension in tensor.dimensions:
        if dimension.WhichOneof("dimension") == "constant":
            sizes.append(dimension.constant.size)
        elif dimension.unknown.variadic:
            return ValueType("tensor", BY_MIL[tensor.dataType].name, None)
        else:
            sizes.append(None)
    return ValueType("tensor", BY_MIL[tensor.dataType].name, tuple(sizes))
