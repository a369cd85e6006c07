"""The form of an ONNX model, bounded before anything expands, allocates or runs it.

``onnx.checker`` asks whether a model is valid; here it is asked whether it is of a size that the file accounts for.
Format: onnx/onnx.in.proto.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.errors import InputError

if TYPE_CHECKING:
    import onnx

#: Nodes once every function is put in its caller's place; large language models have some ten thousand.
_MAX_NODES = 1_000_000
_MAX_DEPTH = 64
#: numpy goes to 64, ONNX Runtime lower.
_MAX_AXES = 64
#: Values of one input: a gigabyte of float32.
_MAX_INPUT_VALUES = 1 << 28


def check_form(path: Path, model: onnx.ModelProto) -> None:
    """Refuse a model whose graph cannot be walked, expanded or fed within bounds.

    Raises:
        InputError: naming what is out of bounds or of an unknown type.
    """
    for fault in faults_of(model):
        raise InputError(
            f"{str(path)!r} is not a usable ONNX model.",
            found=fault,
            remedy="Export it again; `python -m onnx.checker` may show more.",
        )


def faults_of(model: onnx.ModelProto) -> Iterator[str]:
    """What is out of bounds in the model; each as half a sentence."""
    import onnx

    if not model.graph.node or not model.opset_import:
        yield f"no ONNX graph: {len(model.graph.node)} nodes"
    yield from _faults_in_ports(model.graph)
    try:
        count = _expanded_nodes(model)
    except ValueError as error:
        yield str(error)
        return
    if count > _MAX_NODES:
        yield f"more than {_MAX_NODES:,} nodes once its functions are put in place"
    for tensor in tensors_of(model):
        fault = _fault_in_tensor(tensor)
        if fault:
            yield f"tensor {tensor.name[:200]!r} {fault}"
    for graph in _graphs(model):
        for value in (*graph.input, *graph.output, *graph.value_info):
            fault = _fault_in_type(value.type)
            if fault:
                yield f"value {value.name[:200]!r} {fault}"
    for value in model.graph.input:
        if value.type.HasField("tensor_type") and value.type.tensor_type.elem_type in (0, onnx.TensorProto.STRING):
            what = "holds texts" if value.type.tensor_type.elem_type else "has the element type 0, which is none"
            yield f"the input {value.name[:200]!r} {what}"


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of the model: in graphs, graphs within graphs, functions and attributes."""
    for graph in _graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield sparse.values
            yield sparse.indices
    for node in _all_nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                if sparse.HasField("values"):
                    yield sparse.values
                    yield sparse.indices


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in _graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    pending = [model.graph]
    pending += [graph for function in model.functions for node in function.node for graph in _graphs_in(node)]
    while pending:
        graph = pending.pop()
        yield graph
        pending += [inner for node in graph.node for inner in _graphs_in(node)]


def _graphs_in(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [g for a in node.attribute for g in ([a.g] if a.HasField("g") else []) + list(a.graphs)]


def _expanded_nodes(model: onnx.ModelProto) -> int:
    """Nodes after inlining, from the call graph alone; ValueError where a function calls itself."""
    functions: dict[tuple[str, str, str], Any] = {(f.domain, f.name, f.overload): f for f in model.functions}
    known: dict[tuple[str, str, str], int] = {}

    def of_nodes(nodes: Any, trail: tuple[tuple[str, str, str], ...], depth: int) -> int:
        if depth > _MAX_DEPTH:
            raise ValueError(f"graphs or functions nested deeper than {_MAX_DEPTH}")
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            if key in functions:
                if key in trail:
                    raise ValueError(f"the function {key[1][:200]!r} calls itself")
                if key not in known:
                    known[key] = of_nodes(functions[key].node, (*trail, key), depth + 1)
                total += known[key]
            total += 1 + sum(of_nodes(graph.node, trail, depth + 1) for graph in _graphs_in(node))
        return total

    return of_nodes(model.graph.node, (), 0)


def _faults_in_ports(graph: onnx.GraphProto) -> Iterator[str]:
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in weights]
    outputs = [value.name for value in graph.output]
    if not outputs:
        yield "no output"
    for what, names in (("input", inputs), ("output", outputs)):
        twice = sorted({name for name in names if names.count(name) > 1}) if len(names) < 10_000 else ["(too many)"]
        if twice:
            yield f"the {what} {twice[0][:200]!r} twice"
    both = sorted(set(inputs) & set(outputs))
    if both:
        yield f"{both[0][:200]!r} is an input and an output: put an Identity between"
    for value in graph.input:
        sizes = [axis.dim_value for axis in value.type.tensor_type.shape.dim if axis.dim_value > 0]
        if len(sizes) <= _MAX_AXES and math.prod(sizes) > _MAX_INPUT_VALUES:
            yield f"the input {value.name[:200]!r} of {'x'.join(map(str, sizes[:8]))} values"


def _fault_in_type(kind: onnx.TypeProto) -> str:
    if not kind.HasField("tensor_type"):
        return ""
    if len(kind.tensor_type.shape.dim) > _MAX_AXES:
        return f"has {len(kind.tensor_type.shape.dim):,} axes"
    # Some converters write 0 or -1 for an axis of any size, and no type for values between nodes.
    if any(axis.dim_value < -1 for axis in kind.tensor_type.shape.dim):
        return "has an axis of negative size"
    return _fault_in_element(kind.tensor_type.elem_type) if kind.tensor_type.elem_type else ""


def _fault_in_tensor(tensor: onnx.TensorProto) -> str:
    if len(tensor.dims) > _MAX_AXES:
        return f"has {len(tensor.dims):,} axes"
    if any(size < 0 or size > 2**40 for size in tensor.dims):
        return "has an axis of an impossible size"
    fault = _fault_in_element(tensor.data_type)
    if fault or tensor.external_data or tensor.data_location:
        return fault
    return _fault_in_length(tensor)


def _fault_in_element(kind: int) -> str:
    import onnx

    if kind == onnx.TensorProto.UNDEFINED or kind not in onnx.TensorProto.DataType.values():
        return f"has the element type {kind}, which is none"
    if kind in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
        return "holds complex numbers"
    return ""


def _fault_in_length(tensor: onnx.TensorProto) -> str:
    """A tensor promises as many values as it has: its shape alone must not allocate."""
    import onnx

    values = math.prod(tensor.dims)
    if tensor.data_type == onnx.TensorProto.STRING:
        return "" if len(tensor.string_data) == values else f"has {len(tensor.string_data):,} of {values:,} texts"
    if tensor.HasField("raw_data"):
        have = 8 * len(tensor.raw_data) // _bits(tensor.data_type)
        return "" if have >= values else f"has {have:,} of {values:,} values"
    fields = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    have = max(len(field) for field in fields) * max(1, 8 // _bits(tensor.data_type))
    return "" if have >= values else f"has {have:,} of {values:,} values"


def _bits(kind: int) -> int:
    import onnx

    name = onnx.TensorProto.DataType.Name(kind)
    if name.endswith("INT2") or name.startswith("FLOAT4") or name.endswith("INT4"):
        return 2 if name.endswith("INT2") else 4
    return 8 * int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes of the tensor's values as raw data."""
    values: int = math.prod(tensor.dims)
    return (values * _bits(tensor.data_type) + 7) // 8
