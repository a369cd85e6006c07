"""`Editor`: what a rewrite rule may ask of a graph and add to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Editor:
    """A model under rewriting.

    Attributes:
        constants: value of every initializer, by name.
        shapes: static shape of every tensor whose shape is known.
        dtypes: ONNX element type of every tensor whose type is known.
        readers: number of nodes and graph outputs that read a tensor.
        producers: the node behind each tensor.

    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        graph = model.graph
        self.constants: dict[str, NDArray[Any]] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        self.shapes: dict[str, tuple[int, ...]] = {name: value.shape for name, value in self.constants.items()}
        self.dtypes: dict[str, int] = {tensor.name: tensor.data_type for tensor in graph.initializer}
        for info in (*graph.input, *graph.value_info, *graph.output):
            tensor_type = info.type.tensor_type
            self.dtypes[info.name] = tensor_type.elem_type
            if tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor_type.shape.dim):
                self.shapes[info.name] = tuple(dim.dim_value for dim in tensor_type.shape.dim)
        self.producers = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, int] = {}
        for node in graph.node:
            for name in node.input:
                self.readers[name] = self.readers.get(name, 0) + 1
        for output in graph.output:
            self.readers[output.name] = self.readers.get(output.name, 0) + 1
        self.outputs = frozenset(output.name for output in graph.output)
        self._names = {*self.dtypes, *self.producers, *(node.name for node in graph.node)}

    def fresh(self, hint: str) -> str:
        """A name that nothing has yet."""
        name, number = hint, 1
        while name in self._names:
            name, number = f"{hint}_{number}", number + 1
        self._names.add(name)
        return name

    def constant(self, hint: str, value: NDArray[Any] | float) -> str:
        """Add an initializer (float32 for a plain number) and return its name."""
        array = np.asarray(value, np.float32) if isinstance(value, float) else np.ascontiguousarray(value)
        name = self.fresh(hint)
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        self.constants[name] = array
        self.shapes[name] = array.shape
        return name

    def node(
        self, op_type: str, inputs: list[str], output: str | list[str] = "", *, near: str, **attributes: Any
    ) -> onnx.NodeProto:
        """Make a node; its tensors and its own name are derived from ``near`` where ``output`` is not given."""
        outputs = [output] if isinstance(output, str) else output
        outputs = [name or self.fresh(f"{near}_{op_type.lower()}") for name in outputs]
        return helper.make_node(op_type, inputs, outputs, name=self.fresh(f"{near}/{op_type}"), **attributes)


def attributes_of(node: onnx.NodeProto) -> Mapping[str, Any]:
    """The attributes of a node by name, as Python values (strings decoded)."""
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {key: value.decode() if isinstance(value, bytes) else value for key, value in values.items()}
