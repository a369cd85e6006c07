"""The float part of a graph in float16, as strongly typed networks want it; inputs and outputs stay float32.

Q/DQ scales become float16 with the data they scale (opset 19 on), because TensorRT refuses float16 data with a
float32 scale. A scale that float16 holds only as a subnormal keeps float32 between two casts, so that no weight
loses precision to its number format.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.graph.names import names_read

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST_NORMAL = float(np.finfo(np.float16).tiny)

#: Inputs that stay float32 whatever the data type, by op: (op type, input index).
_FLOAT32_INPUTS = frozenset({("Resize", 1), ("Resize", 2)})
_SUBGRAPH = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def to_float16(model: onnx.ModelProto, keep: Iterable[str] = ()) -> onnx.ModelProto:
    """Return a copy that computes in float16 between float32 inputs and outputs.

    Constants beyond float16's range are clamped to it (an attention mask's -3.4e38 becomes -65504).

    Args:
        model: float32 or Q/DQ graph, opset 19 or newer, shapes inferred.
        keep: names of nodes that go on computing in float32, between casts.
    """
    return _Converter(model, frozenset(keep)).run()


class _Converter:
    def __init__(self, model: onnx.ModelProto, keep: frozenset[str]) -> None:
        self._model = onnx.shape_inference.infer_shapes(model)
        self._keep = keep
        graph = self._model.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._floats = _float_tensors(graph)
        self._outputs = {value.name for value in graph.output}
        self._halves: dict[str, str] = {}
        self._singles: dict[str, str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}

    def run(self) -> onnx.ModelProto:
        graph = self._model.graph
        for value in graph.input:
            if value.name in self._floats:
                self._cast(value.name, _HALF)
        for node in graph.node:
            self._convert(node)
        for value in graph.output:
            if value.name in self._floats and self._singles.get(value.name) != value.name:
                self._restore_output(value.name)
        result = onnx.ModelProto()
        result.CopyFrom(self._model)
        del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
        result.graph.node.extend(self._nodes)
        used = names_read(result.graph)
        result.graph.initializer.extend(t for name, t in self._initializers.items() if name in used)
        return onnx.shape_inference.infer_shapes(result)

    def _convert(self, node: onnx.NodeProto) -> None:
        if self._stays_float32(node):
            self._emit_float32(node)
            return
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(node.input):
            single = (node.op_type, index) in _FLOAT32_INPUTS
            copy.input[index] = self._single(name) if single else self._half(name)
        for attribute in copy.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == _FLOAT:
                attribute.i = _HALF
            if node.op_type == "ConstantOfShape" and attribute.t.data_type == _FLOAT:
                attribute.t.CopyFrom(_half_tensor(attribute.t, attribute.t.name))
        self._nodes.append(copy)
        self._halves.update({name: name for name in node.output if name in self._floats})

    def _stays_float32(self, node: onnx.NodeProto) -> bool:
        if node.name in self._keep or any(attribute.type in _SUBGRAPH for attribute in node.attribute):
            return True
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.input[1] not in self._constants:
            return False
        scale = numpy_helper.to_array(self._constants[node.input[1]])
        return bool(np.any((scale < _SMALLEST_NORMAL) | (scale > _LARGEST)))

    def _emit_float32(self, node: onnx.NodeProto) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(node.input):
            copy.input[index] = self._single(name)
        for index, name in enumerate(node.output):
            if name in self._floats:
                copy.output[index] = name if name in self._outputs else f"{name}_float32"
                self._singles[name] = copy.output[index]
        self._nodes.append(copy)
        for name in node.output:
            if name in self._floats:
                self._cast(self._singles[name], _HALF, original=name)

    def _half(self, name: str) -> str:
        if name not in self._floats:
            return self._other(name)
        if name in self._constants and name not in self._halves:
            self._initializers[f"{name}_float16"] = _half_tensor(self._constants[name], f"{name}_float16")
            self._halves[name] = f"{name}_float16"
        return self._halves[name]

    def _single(self, name: str) -> str:
        if name not in self._floats:
            return self._other(name)
        if name in self._constants:
            self._initializers[name] = self._constants[name]
            return name
        if name not in self._singles:
            self._cast(self._halves[name], _FLOAT, original=name)
        return self._singles[name]

    def _other(self, name: str) -> str:
        if name in self._constants:
            self._initializers[name] = self._constants[name]
        return name

    def _cast(self, source: str, to: int, original: str = "") -> None:
        """Cast ``source``; the result stands for ``original`` in the type asked for."""
        original = original or source
        target = f"{original}_float16" if to == _HALF else f"{original}_float32"
        self._nodes.append(helper.make_node("Cast", [source], [target], name=f"{target}_cast", to=to))
        (self._halves if to == _HALF else self._singles)[original] = target
        if to == _HALF and source == original:
            self._singles[original] = original

    def _restore_output(self, name: str) -> None:
        """Give a graph output its own name back in float32; the float16 tensor takes another."""
        if name in self._constants:
            self._initializers[name] = self._constants[name]
            return
        half = f"{name}_float16"
        for node in self._nodes:
            node.input[:] = [half if item == name else item for item in node.input]
            node.output[:] = [half if item == name else item for item in node.output]
        self._nodes.append(helper.make_node("Cast", [half], [name], name=f"{name}_float32_cast", to=_FLOAT))


def _float_tensors(graph: onnx.GraphProto) -> frozenset[str]:
    names = {tensor.name for tensor in graph.initializer if tensor.data_type == _FLOAT}
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == _FLOAT:
            names.add(value.name)
    return frozenset(names)


def _half_tensor(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    values = np.clip(numpy_helper.to_array(tensor), -_LARGEST, _LARGEST)
    return numpy_helper.from_array(values.astype(np.float16), name)
