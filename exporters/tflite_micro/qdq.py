"""`read_qdq`: a Q/DQ ONNX graph as integer tensors and the operations between them.

A QuantizeLinear/DequantizeLinear pair is no operation here: it says how the tensor before it is stored. A second pair
with other parameters on the same tensor becomes a ``Requantize`` node. A Relu or Clip whose input has no pair belongs
to the node before it (`Node.activation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgedeploy.errors import InputError
from edgedeploy.exporters.tflite_micro.ir import Affine

if TYPE_CHECKING:
    from numpy.typing import NDArray


#: Ops that say how a tensor is stored, or hold a constant: what they make needs no declared shape.
_STORAGE = frozenset({"QuantizeLinear", "DequantizeLinear", "Constant"})


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor: ``dtype`` is how it is stored, ``data`` the stored constant if it is one."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Affine | None = None
    data: NDArray[Any] | None = None

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def real(self) -> NDArray[np.float64]:
        """A constant's real values."""
        assert self.data is not None
        data = self.data.astype(np.float64)
        if self.quantization is None:
            return data
        scale, point = self.quantization.scale.astype(np.float64), self.quantization.zero_point
        if self.quantization.per_channel:
            shape = [1] * data.ndim
            shape[self.quantization.axis] = -1
            scale, point = scale.reshape(shape), point.reshape(shape)
        return np.asarray((data - point) * scale, np.float64)


@dataclass(frozen=True)
class Clamp:
    """A fused Relu or Clip: real limits, infinite where there is none."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Node:
    """One operation on `Value` objects; ``None`` stands for an operand left out."""

    op_type: str
    name: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    activation: Clamp | None = None

    def input(self, index: int) -> Value:
        """The operand at ``index``; `InputError` where it is missing."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise InputError(f"{self.op_type} at {self.name!r} lacks its input {index}.")
        return value

    def optional(self, index: int) -> Value | None:
        """The operand at ``index``, or ``None``."""
        return self.inputs[index] if index < len(self.inputs) else None

    def constant(self, index: int) -> NDArray[Any]:
        """The raw data of a constant operand; `InputError` where it is computed at run time."""
        value = self.input(index)
        if value.data is None:
            raise InputError(
                f"{self.op_type} at {self.name!r} computes its input {value.name!r} at run time.",
                remedy="Make it a constant of the model.",
            )
        return value.data

    @property
    def output(self) -> Value:
        """The first output."""
        return self.outputs[0]


@dataclass(frozen=True)
class QdqGraph:
    """Nodes in execution order; ``outputs`` pairs each graph output's name with its value."""

    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[tuple[str, Value], ...]

    def consumers(self) -> dict[Value, list[Node]]:
        """The nodes that read each value."""
        table: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in node.inputs:
                if value is not None:
                    table.setdefault(value, []).append(node)
        return table


def read_qdq(model: onnx.ModelProto) -> QdqGraph:
    """Read a static Q/DQ graph.

    Raises:
        InputError: where a tensor's shape is dynamic or unknown.
    """
    return _Reader(model).read()


class _Reader:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._shapes, self._dtypes = _declared(model)
        self._quantizers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            if node.op_type == "QuantizeLinear":
                self._quantizers.setdefault(node.input[0], []).append(node)
        self._values: dict[str, Value] = {}
        self._affines: dict[tuple[str, str, int], tuple[Affine, str]] = {}
        self._nodes: list[Node] = []

    def read(self) -> QdqGraph:
        inputs = tuple(
            self._produced(tensor.name) for tensor in self._graph.input if tensor.name not in self._constants
        )
        for node in self._graph.node:
            if node.op_type == "QuantizeLinear":
                self._quantize(node)
            elif node.op_type == "DequantizeLinear":
                self._dequantize(node)
            elif node.op_type == "Constant":
                self._constants[node.output[0]] = node.attribute[0].t
            elif node.op_type in ("Identity", "Dropout"):
                self._values[node.output[0]] = self._value(node.input[0])
            else:
                self._operation(node)
        outputs = tuple((tensor.name, self._value(tensor.name)) for tensor in self._graph.output)
        return QdqGraph(tuple(_fuse(self._nodes, {value for _, value in outputs})), inputs, outputs)

    def _operation(self, node: onnx.NodeProto) -> None:
        self._nodes.append(
            Node(
                node.op_type,
                node.name or node.output[0],
                tuple(self._value(name) if name else None for name in node.input),
                tuple(self._produced(name) for name in node.output if name),
                {attribute.name: _attribute(attribute) for attribute in node.attribute},
            )
        )

    def _quantize(self, node: onnx.NodeProto) -> None:
        source = self._value(node.input[0])
        affine, dtype = self._parameters(node)
        if source.data is not None:
            self._values[node.output[0]] = _quantized_constant(source, affine, dtype)
        elif source.dtype == dtype and affine.same_as(source.quantization):
            self._values[node.output[0]] = source
        else:
            made = Value(node.output[0], source.shape, dtype, affine)
            self._nodes.append(Node("Requantize", node.name or node.output[0], (source,), (made,)))
            self._values[node.output[0]] = made

    def _dequantize(self, node: onnx.NodeProto) -> None:
        if node.input[0] in self._constants:
            data = self._array(node.input[0])
            affine, _ = self._parameters(node)
            self._values[node.output[0]] = Value(node.output[0], data.shape, str(data.dtype), affine, data)
        else:
            self._values[node.output[0]] = self._value(node.input[0])

    def _parameters(self, node: onnx.NodeProto) -> tuple[Affine, str]:
        name, scale_name, *rest = node.input
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        rank = len(self._constants[name].dims) if name in self._constants else len(self._shapes.get(name, ()))
        key = (scale_name, rest[0] if rest else "", axis % max(rank, 1))
        if key not in self._affines:
            point = self._array(key[1]) if key[1] else np.uint8(0)
            self._affines[key] = Affine.of(self._array(scale_name), point, key[2]), str(point.dtype)
        return self._affines[key]

    def _value(self, name: str) -> Value:
        if name not in self._values:
            if name not in self._constants:
                raise InputError(f"The graph reads the tensor {name!r}, which nothing produces.")
            data = self._array(name)
            self._values[name] = Value(name, data.shape, str(data.dtype), None, data)
        return self._values[name]

    def _produced(self, name: str) -> Value:
        shape = self._shapes.get(name)
        if shape is None or not all(isinstance(size, int) for size in shape):
            raise InputError(
                f"The tensor {name!r} has no static shape.",
                found="x".join(map(str, shape)) if shape else "no shape at all",
                remedy="TensorFlow Lite Micro plans memory before it runs: give every input a fixed shape (batch 1).",
            )
        dtype = self._dtypes.get(name, "float32")
        affine = None
        if name in self._quantizers:
            affine, dtype = self._parameters(self._quantizers[name][0])
        self._values[name] = Value(name, tuple(int(size) for size in shape), dtype, affine)
        return self._values[name]

    def _array(self, name: str) -> NDArray[Any]:
        if name not in self._constants:
            raise InputError(f"The quantization parameter {name!r} is not a constant of the graph.")
        return np.asarray(numpy_helper.to_array(self._constants[name]))


def _declared(model: onnx.ModelProto) -> tuple[dict[str, tuple[int | str, ...]], dict[str, str]]:
    shapes, dtypes = _types(model.graph)
    for node in reversed(model.graph.node):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.output[0] in shapes:
            shapes.setdefault(node.input[0], shapes[node.output[0]])
    computed = (node for node in model.graph.node if node.op_type not in _STORAGE)
    if any(name not in shapes for node in computed for name in node.output if name):
        return _types(onnx.shape_inference.infer_shapes(model, data_prop=True).graph)
    return shapes, dtypes


def _types(graph: onnx.GraphProto) -> tuple[dict[str, tuple[int | str, ...]], dict[str, str]]:
    shapes: dict[str, tuple[int | str, ...]] = {}
    dtypes: dict[str, str] = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            shapes[value.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or "?") for dim in tensor.shape.dim
            )
        dtypes[value.name] = _dtype_name(tensor.elem_type)
    return shapes, dtypes


@cache
def _dtype_name(elem_type: int) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(elem_type))


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    return tuple(value) if isinstance(value, list) else value


def _quantized_constant(source: Value, affine: Affine, dtype: str) -> Value:
    scale = affine.scale.astype(np.float64)
    point = affine.zero_point
    if affine.per_channel:
        shape = [1] * source.rank
        shape[affine.axis] = -1
        scale, point = scale.reshape(shape), point.reshape(shape)
    limits = np.iinfo(dtype)
    data = np.clip(np.rint(source.real / scale) + point, limits.min, limits.max).astype(dtype)
    return Value(source.name, source.shape, dtype, affine, data)


def _fuse(nodes: list[Node], kept: set[Value]) -> list[Node]:
    """Move each Relu, Clip and bias Add without a Q/DQ pair before it into the node that feeds it."""
    readers: dict[Value, int] = {}
    for node in nodes:
        for value in node.inputs:
            if value is not None:
                readers[value] = readers.get(value, 0) + 1
    producer = {node.output: index for index, node in enumerate(nodes)}
    fused: list[Node | None] = list(nodes)
    for index, node in enumerate(nodes):
        source, bias = _fusible_operand(node)
        if source is None:
            continue
        at = producer.get(source)
        before = fused[at] if at is not None else None
        if at is None or before is None or readers[source] != 1 or source in kept or len(before.outputs) != 1:
            continue
        if before.activation is not None or (
            bias is not None and (before.op_type != "MatMul" or len(before.inputs) > 2)
        ):
            continue
        if bias is not None:
            fused[at] = replace(before, outputs=node.outputs, inputs=(*before.inputs, bias))
        else:
            fused[at] = replace(before, outputs=node.outputs, activation=clamp_of(node))
        producer[node.output] = at
        fused[index] = None
    return [node for node in fused if node is not None]


def _fusible_operand(node: Node) -> tuple[Value | None, Value | None]:
    """What an activation or a bias Add works on, if that is never stored; and the bias."""
    if node.op_type in ("Relu", "Clip"):
        source = node.input(0)
        return (None if source.quantization is not None else source), None
    if node.op_type != "Add":
        return None, None
    left, right = node.input(0), node.input(1)
    for source, bias in ((left, right), (right, left)):
        if source.data is None and source.quantization is None and bias.data is not None:
            return source, bias
    return None, None


def clamp_of(node: Node) -> Clamp:
    """The limits of a Relu or Clip node (opset 11 and later: limits are inputs)."""
    if node.op_type == "Relu":
        return Clamp(0.0, float("inf"))
    limits = [float("-inf"), float("inf")]
    for index in (1, 2):
        value = node.optional(index)
        if value is not None:
            node.constant(index)
            limits[index - 1] = float(value.real.reshape(-1)[0])
    return Clamp(*limits)
