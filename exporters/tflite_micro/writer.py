"""`write_tflite`: a Q/DQ ONNX graph becomes the bytes of a .tflite file for TensorFlow Lite Micro."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from edgedeploy.errors import InputError
from edgedeploy.exporters.tflite_micro.constraints import check_constraints
from edgedeploy.exporters.tflite_micro.flatbuffer import serialize
from edgedeploy.exporters.tflite_micro.ir import TfliteModel
from edgedeploy.exporters.tflite_micro.layout import UNIT, Layout, channels_last, identity
from edgedeploy.exporters.tflite_micro.lowering import Lowering, WriterOptions
from edgedeploy.exporters.tflite_micro.normalise import normalise
from edgedeploy.exporters.tflite_micro.qdq import QdqGraph, Value, read_qdq
from edgedeploy.exporters.tflite_micro.registry import check_supported, entries

#: Ops that want channels last; an input that reaches one through element-wise ops is stored that way.
_SPATIAL = frozenset(
    {
        *("Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Resize"),
        *("DepthToSpace", "SpaceToDepth"),
    }
)
_TRANSPARENT = frozenset(
    {
        *("Requantize", "Relu", "Clip", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Add", "Sub", "Mul", "Div"),
        *("Pad", "Concat", "Slice", "BatchNormalization"),
    }
)


@dataclass(frozen=True)
class Port:
    """A model input or output: the source graph's name, the tensor that stores it, its layout."""

    source_name: str
    tensor: int
    layout: Layout


@dataclass(frozen=True)
class WrittenModel:
    """What was written: the file's bytes, the model they say, and its ports in the source graph's order."""

    content: bytes
    model: TfliteModel
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def write_tflite(model: onnx.ModelProto, options: WriterOptions | None = None) -> WrittenModel:
    """Write a Q/DQ graph of the scheme ``tflite`` or ``tflite-int16x8``.

    Raises:
        UnsupportedOpError: where an op has no integer kernel, all of them named, before anything is written.
        InputError: for dynamic shapes, tensors left float, int64 inputs, or a scale no kernel takes.
    """
    graph = read_qdq(model)
    check_supported(graph)
    return lower_graph(normalise(graph), options or WriterOptions())


def lower_graph(graph: QdqGraph, options: WriterOptions) -> WrittenModel:
    """Write a normalised graph."""
    lower = Lowering(graph, options)
    inputs = tuple(_input(lower, value) for value in graph.inputs)
    table = entries()
    for node in graph.nodes:
        lower.begin(node)
        table[node.op_type].handler(lower, node)
        lower.finish(node)
    outputs = tuple(_output(lower, name, value) for name, value in graph.outputs)
    lower.model.inputs = [port.tensor for port in inputs]
    lower.model.outputs = [port.tensor for port in outputs]
    if not lower.model.operators:
        raise InputError("The model holds no operation: its outputs are its inputs.")
    check_constraints(lower.model)
    return WrittenModel(serialize(lower.model), lower.model, inputs, outputs)


def _input(lower: Lowering, value: Value) -> Port:
    refuse_wide_inputs(value)
    layout = identity(value.rank)
    if value.rank in (3, 4) and _wants_channels_last(lower, value):
        layout = tuple(axis for axis in channels_last(value.rank) if axis != UNIT)
    return Port(value.name, lower.define(value, layout), layout)


def refuse_wide_inputs(value: Value) -> None:
    """Raise `InputError` for an int64 or float64 input."""
    if value.dtype in ("int64", "float64"):
        narrow = value.dtype.replace("64", "32")
        raise InputError(
            f"The input {value.name!r} is {value.dtype}, which no kernel of TensorFlow Lite Micro takes.",
            found="x".join(map(str, value.shape)),
            remedy=f"Export the model with {narrow} inputs (torch embeddings take int32 ids too).",
        )


def _wants_channels_last(lower: Lowering, value: Value) -> bool:
    seen: set[Value] = set()
    waiting = [value]
    while waiting:
        current = waiting.pop()
        for node in lower.consumers.get(current, ()):
            if node.op_type in _SPATIAL:
                return True
            if node.op_type in _TRANSPARENT and node.output not in seen:
                seen.add(node.output)
                waiting.extend(output for output in node.outputs if output.rank == value.rank)
    return False


def _output(lower: Lowering, name: str, value: Value) -> Port:
    """Images and signals leave with channels last, everything else in the source's own order."""
    if value.data is not None:
        raise InputError(f"The output {name!r} is a constant.", remedy="Remove it from the model.")
    layout = lower.layout_of(value)
    wanted = identity(value.rank)
    if value.rank in (3, 4) and layout == channels_last(value.rank):
        wanted = tuple(axis for axis in layout if axis != UNIT)
    return Port(name, lower.operand(value, wanted), wanted)
