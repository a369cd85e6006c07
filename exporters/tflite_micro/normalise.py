"""Passes over the Q/DQ graph before it is written: one width a node, equal scales where the kernels copy codes.

The graph's own meaning is kept: where it asks for a kernel that does not exist (an int8 and an int16 operand, a Concat
of three scales, a softmax in a scale of its own) an explicit ``Requantize`` makes the operation writable.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgedeploy.exporters.tflite_micro.functions import FUNCTIONS
from edgedeploy.exporters.tflite_micro.ir import Affine
from edgedeploy.exporters.tflite_micro.qdq import Node, QdqGraph, Value

#: Ops whose kernels copy or compare codes: every float operand and result has one scale.
SAME_SCALE = frozenset(
    {
        *("Concat", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Pad", "Gather"),
        *("MaxPool", "AveragePool", "GlobalMaxPool", "Resize", "Max", "Min", "ReduceMax", "Clip", "Where"),
        *("DepthToSpace", "SpaceToDepth", "Expand", "Tile"),
    }
)

#: Codes that the kernels assume for their output: (int8 scale, int8 zero point, int16 scale).
FIXED_OUTPUTS: dict[str, tuple[float, int, float]] = {
    "Sigmoid": (2**-8, -128, 2**-15),
    "Tanh": (2**-7, 0, 2**-15),
    "Softmax": (2**-8, -128, 2**-15),
    "LogSoftmax": (16 / 256, 127, 0.0),
}

#: Ops whose kernels, or whose stand-in of a 256-entry table, take int8 only.
EIGHT_BIT_ONLY = frozenset(
    {"HardSwish", "PRelu", "DepthToSpace", "SpaceToDepth", "ReduceMax", "LogSoftmax"}
) | frozenset(FUNCTIONS)

#: Ops with a constant operand that is an activation-like number, not a weight.
_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min", "Where", "Concat", "Pow"})


def normalise(graph: QdqGraph) -> QdqGraph:
    """Return the graph with uniform widths, inherited scales and explicit requantization."""
    return _Pass(graph).run()


class _Pass:
    def __init__(self, graph: QdqGraph) -> None:
        self._graph = graph
        self._nodes: list[Node] = []
        self._replaced: dict[Value, Value] = {}
        self._made: dict[tuple[Value, str, bytes], Value] = {}
        self._after: list[Node] = []

    def run(self) -> QdqGraph:
        for node in self._graph.nodes:
            self._node(replace(node, inputs=tuple(self._now(value) for value in node.inputs)))
        outputs = tuple((name, self._replaced.get(value, value)) for name, value in self._graph.outputs)
        return QdqGraph(tuple(self._nodes), self._graph.inputs, outputs)

    def _now(self, value: Value | None) -> Value | None:
        return None if value is None else self._replaced.get(value, value)

    def _node(self, node: Node) -> None:
        if node.op_type != "Requantize":
            node = self._inherit(node)
            node = self._narrowed(node) if _has_int8_kernels_only(node) else self._one_width(node)
            node = self._one_scale(node)
        node, after = self._fixed_output(node)
        self._nodes.append(node)
        self._nodes.extend(after)

    def _inherit(self, node: Node) -> Node:
        """An op that only moves codes gives its unquantized output the scale of its input."""
        source = next((value for value in _data_inputs(node) if value.data is None), None)
        if node.op_type not in SAME_SCALE or source is None or source.quantization is None:
            return node
        outputs = []
        for value in node.outputs:
            if value.quantization is None and value.dtype == "float32":
                self._replaced[value] = replace(value, dtype=source.dtype, quantization=source.quantization)
            outputs.append(self._replaced.get(value, value))
        return replace(node, outputs=tuple(outputs))

    def _narrowed(self, node: Node) -> Node:
        """Compute in int8 what has no int16 kernel, between two requantizations."""
        data = _data_inputs(node)
        if all(value.dtype != "int16" for value in (*data, *node.outputs)):
            return node
        inputs = list(node.inputs)
        for index, value in enumerate(inputs):
            if value is not None and value in data and value.dtype == "int16" and value.data is None:
                assert value.quantization is not None
                inputs[index] = self._requantized(value, "int8", narrow(value.quantization))
        outputs = []
        for value in node.outputs:
            assert value.quantization is not None
            made = replace(value, name=f"{value.name}:int8", dtype="int8", quantization=narrow(value.quantization))
            self._after.append(Node("Requantize", f"{node.name}:int16", (made,), (value,)))
            outputs.append(made)
        return replace(node, inputs=tuple(inputs), outputs=tuple(outputs))

    def _one_width(self, node: Node) -> Node:
        data = [value for value in _data_inputs(node) if value.data is None]
        widths = {value.dtype for value in (*data, *node.outputs) if value.dtype in ("int8", "int16")}
        if "int16" not in widths:
            return node
        inputs = [self._raised(node, value) for value in node.inputs]
        node = replace(node, inputs=tuple(inputs))
        if any(value.dtype == "int8" for value in node.outputs):
            return self._lowered_output(node)
        return node

    def _raised(self, node: Node, value: Value | None) -> Value | None:
        if value is None or value.dtype != "int8" or value.quantization is None:
            return value
        affine = wide(value.quantization)
        if value.data is None:
            return self._requantized(value, "int16", affine)
        if node.op_type not in _ELEMENTWISE and not (node.op_type == "MatMul" and value.rank > 2):
            return value
        if value.quantization.per_channel:
            affine = Affine.of(max(float(np.abs(value.real).max()), 1e-30) / 32767)
        codes = np.clip(np.rint(value.real / float(affine.scale[0])), -32767, 32767).astype(np.int16)
        return replace(value, dtype="int16", quantization=affine, data=codes)

    def _lowered_output(self, node: Node) -> Node:
        """Compute in int16 and requantize what the graph wants in int8."""
        wider = []
        for value in node.outputs:
            assert value.quantization is not None
            made = Value(f"{value.name}:int16", value.shape, "int16", wide(value.quantization))
            wider.append((made, value))
        self._after.extend(Node("Requantize", f"{node.name}:int8", (made,), (value,)) for made, value in wider)
        return replace(node, outputs=tuple(made for made, _ in wider))

    def _one_scale(self, node: Node) -> Node:
        if node.op_type not in SAME_SCALE or node.output.quantization is None:
            return node
        if node.op_type == "Split":
            return self._split(node)
        target = node.output
        assert target.quantization is not None
        inputs = list(node.inputs)
        for index, value in enumerate(inputs):
            if value is None or value not in _data_inputs(node) or value.quantization is None:
                continue
            if not target.quantization.same_as(value.quantization):
                inputs[index] = self._matched(value, target)
        return replace(node, inputs=tuple(inputs))

    def _matched(self, value: Value, target: Value) -> Value:
        assert target.quantization is not None
        if value.data is None:
            return self._requantized(value, target.dtype, target.quantization)
        info = np.iinfo(target.dtype)
        codes = np.rint(value.real / float(target.quantization.scale[0])) + target.quantization.zero_point[0]
        data = np.clip(codes, info.min, info.max).astype(target.dtype)
        return replace(value, dtype=target.dtype, quantization=target.quantization, data=data)

    def _split(self, node: Node) -> Node:
        source = node.input(0)
        outputs, after = [], []
        for value in node.outputs:
            if source.quantization is not None and not source.quantization.same_as(value.quantization):
                made = replace(value, name=f"{value.name}:split", quantization=source.quantization)
                after.append(Node("Requantize", f"{node.name}:scale", (made,), (value,)))
                outputs.append(made)
            else:
                outputs.append(value)
        self._after.extend(after)
        return replace(node, outputs=tuple(outputs))

    def _fixed_output(self, node: Node) -> tuple[Node, list[Node]]:
        after, self._after = self._after, []
        fixed = FIXED_OUTPUTS.get(node.op_type)
        value = node.output
        if fixed is None or value.quantization is None:
            return node, after
        scale, point, scale16 = fixed
        affine = Affine.of(scale16) if value.dtype == "int16" else Affine.of(scale, point)
        if affine.same_as(value.quantization):
            return node, after
        made = replace(value, name=f"{value.name}:kernel", quantization=affine)
        step = Node("Requantize", f"{node.name}:scale", (made,), (value,))
        return replace(node, outputs=(made,)), [step, *after]

    def _requantized(self, value: Value, dtype: str, affine: Affine) -> Value:
        key = (value, dtype, _key(affine))
        if key not in self._made:
            made = Value(f"{value.name}:{dtype}", value.shape, dtype, affine)
            self._nodes.append(Node("Requantize", made.name, (value,), (made,)))
            self._made[key] = made
        return self._made[key]


def _data_inputs(node: Node) -> tuple[Value, ...]:
    """The operands that carry activations: not weights, shapes, indices or limits."""
    if node.op_type in _ELEMENTWISE or node.op_type == "MatMul":
        return tuple(value for value in node.inputs if value is not None)
    return tuple(value for value in node.inputs[:1] if value is not None)


def wide(affine: Affine) -> Affine:
    """The symmetric int16 scale that covers an int8 tensor's whole range."""
    scale, point = float(affine.scale[0]), int(affine.zero_point[0])
    return Affine.of(max(128 + point, 127 - point) * scale / 32767)


def narrow(affine: Affine) -> Affine:
    """The symmetric int8 scale that covers an int16 tensor's whole range."""
    return Affine.of(float(affine.scale[0]) * 32767 / 127)


def _has_int8_kernels_only(node: Node) -> bool:
    if node.op_type == "Resize":
        return bool(node.attributes.get("mode", "nearest") != "nearest")
    if node.op_type == "Pad":
        return bool(node.attributes.get("mode", "constant") == "reflect")
    if node.op_type == "Gather":
        return node.input(1).data is None or node.constant(1).size > 1
    return node.op_type in EIGHT_BIT_ONLY


def _key(affine: Affine) -> bytes:
    return affine.scale.tobytes() + affine.zero_point.tobytes()
