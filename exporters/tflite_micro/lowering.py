"""`Lowering`: what an op handler writes with — stored tensors, layouts, constants, operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.errors import InputError
from edgedeploy.exporters.tflite_micro.ir import Affine, Operator, Tensor, TfliteModel
from edgedeploy.exporters.tflite_micro.layout import (
    UNIT,
    Layout,
    identity,
    significant,
    stored_shape,
)
from edgedeploy.exporters.tflite_micro.qdq import Clamp, Node, QdqGraph, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class WriterOptions:
    """Choices of the writer.

    Attributes:
        per_channel_fc: FULLY_CONNECTED weights keep a scale per output; TFLite Micro before 2024 wants one per tensor.
    """

    per_channel_fc: bool = True


@dataclass(frozen=True)
class Stored:
    """Where a value lies: tensor index, layout, and the element order of the last axis if it was scrambled."""

    tensor: int
    layout: Layout
    scramble: NDArray[np.int64] | None = None


@dataclass
class Lowering:
    """The model being written and where each value of the source graph is stored in it."""

    graph: QdqGraph
    options: WriterOptions = field(default_factory=WriterOptions)
    model: TfliteModel = field(default_factory=TfliteModel)
    source: str = ""

    def __post_init__(self) -> None:
        self._stored: dict[Value, Stored] = {}
        self._other_layouts: dict[tuple[Value, Layout], int] = {}
        self._pending: Clamp | None = None
        self.consumers = self.graph.consumers()

    # -- reading -----------------------------------------------------------------------------------------------

    def layout_of(self, value: Value) -> Layout:
        """The layout a run-time value is stored in (constants: the source's own)."""
        return self._stored[value].layout if value in self._stored else identity(value.rank)

    def scramble_of(self, value: Value) -> NDArray[np.int64] | None:
        """The element order of the last axis, where a flatten left it scrambled."""
        return self._stored[value].scramble if value in self._stored else None

    def operand(self, value: Value, layout: Layout | None = None) -> int:
        """The tensor index of a value in the wanted layout; moves data only where the bytes must differ."""
        if value.data is not None:
            return self._constant_operand(value, layout or identity(value.rank))
        stored = self._stored[value]
        if layout is None or layout == stored.layout:
            return stored.tensor
        key = (value, layout)
        if key not in self._other_layouts:
            self._other_layouts[key] = self._moved(value, stored, layout)
        return self._other_layouts[key]

    def _moved(self, value: Value, stored: Stored, layout: Layout) -> int:
        wanted = stored_shape(value.shape, layout)
        index = stored.tensor
        tensor = self.model.tensors[index]
        if significant(value.shape, stored.layout) == significant(value.shape, layout):
            return index if tensor.shape == wanted else self.reshape(index, wanted)
        ours = tuple(axis for axis in stored.layout if axis != UNIT)
        theirs = tuple(axis for axis in layout if axis != UNIT)
        if len(ours) != len(stored.layout):
            index = self.reshape(index, stored_shape(value.shape, ours))
        index = self.transpose(index, tuple(ours.index(axis) for axis in theirs))
        return index if len(theirs) == len(layout) else self.reshape(index, wanted)

    def _constant_operand(self, value: Value, layout: Layout) -> int:
        assert value.data is not None
        axes = tuple(axis for axis in layout if axis != UNIT)
        data = value.data.transpose(axes).reshape(stored_shape(value.shape, layout))
        quantization = value.quantization
        if quantization is not None and quantization.per_channel:
            quantization = replace(quantization, axis=layout.index(quantization.axis))
        return self.constant(data, quantization)

    # -- writing -----------------------------------------------------------------------------------------------

    def define(self, value: Value, layout: Layout, *, scramble: NDArray[np.int64] | None = None) -> int:
        """Make the tensor that stores a run-time value and return its index."""
        dtype = "int32" if value.dtype == "int64" else value.dtype
        shape = stored_shape(value.shape, layout)
        index = self.model.add(Tensor(value.name, shape, dtype, value.quantization))
        self._stored[value] = Stored(index, layout, scramble)
        return index

    def alias(self, value: Value, tensor: int, layout: Layout) -> None:
        """Let a value be an existing tensor: no data moves."""
        self._stored[value] = Stored(tensor, layout)

    def temporary(self, like: int | None, name: str, **changes: Any) -> int:
        """A tensor between two operators of one node, made like another one but for ``changes``."""
        base = self.model.tensors[like] if like is not None else Tensor("", (), "int8")
        return self.model.add(replace(base, name=f"{self.source}:{name}", data=None, **changes))

    def constant(self, data: NDArray[Any], quantization: Affine | None = None) -> int:
        """A constant tensor."""
        data = np.ascontiguousarray(data)
        return self.model.add(Tensor("", tuple(data.shape), str(data.dtype), quantization, data))

    def vector(self, values: Sequence[int]) -> int:
        """A constant int32 vector: a shape, axes, a permutation."""
        return self.constant(np.asarray(values, np.int32))

    def emit(self, builtin: str, inputs: Sequence[int], outputs: Sequence[int], **options: Any) -> int:
        """Append an operator and return its first output."""
        self.model.operators.append(Operator(builtin, tuple(inputs), tuple(outputs), options, self.source))
        return outputs[0]

    def reshape(self, tensor: int, shape: Sequence[int], output: int | None = None) -> int:
        """RESHAPE to ``shape``; into ``output`` where given."""
        if output is None:
            output = self.temporary(tensor, "reshaped", shape=tuple(shape))
        return self.emit("RESHAPE", (tensor, self.vector(shape)), (output,), newShape=list(shape))

    def transpose(self, tensor: int, permutation: Sequence[int], output: int | None = None) -> int:
        """TRANSPOSE; into ``output`` where given."""
        if output is None:
            shape = self.model.tensors[tensor].shape
            output = self.temporary(tensor, "transposed", shape=tuple(shape[axis] for axis in permutation))
        return self.emit("TRANSPOSE", (tensor, self.vector(permutation)), (output,))

    def requantized(self, tensor: int, dtype: str, quantization: Affine, name: str = "requantized") -> int:
        """The tensor in another scale or width; itself where nothing changes."""
        found = self.model.tensors[tensor]
        if found.dtype == dtype and quantization.same_as(found.quantization):
            return tensor
        output = self.temporary(tensor, name, dtype=dtype, quantization=quantization)
        return self.emit("QUANTIZE", (tensor,), (output,))

    # -- fused activations ------------------------------------------------------------------------------------

    def begin(self, node: Node) -> None:
        """Start a node: its operators carry its name, its activation waits to be fused."""
        self.source = node.name
        self._pending = node.activation

    def fused_activation(self) -> int:
        """The schema's code of the node's activation, for an operator that has one.

        What no code expresses stays pending and becomes MINIMUM and MAXIMUM in `finish`.
        """
        codes = {Clamp(0, math.inf): 1, Clamp(-1, 1): 2, Clamp(0, 6): 3}
        if self._pending is None:
            return 0
        code = codes.get(self._pending, 0)
        if code:
            self._pending = None
        elif self._pending.low == 0:
            self._pending = Clamp(-math.inf, self._pending.high)
            code = 1
        return code

    def finish(self, node: Node) -> None:
        """Clamp the node's output where its activation was not fused and the range does not imply it."""
        if self._pending is not None:
            self.clamp(node.output, self._pending)
            self._pending = None

    def clamp(self, value: Value, limits: Clamp) -> None:
        """Replace the stored value by one clamped with MAXIMUM and MINIMUM in the same scale."""
        stored = self._stored[value]
        tensor = self.model.tensors[stored.tensor]
        affine = tensor.quantization
        if affine is None:
            raise InputError(f"{self.source!r} clamps the tensor {value.name!r}, which has no quantization.")
        info = np.iinfo(tensor.dtype)
        scale, point = float(affine.scale[0]), int(affine.zero_point[0])
        index = stored.tensor
        for builtin, limit, extreme in (("MAXIMUM", limits.low, info.min), ("MINIMUM", limits.high, info.max)):
            if math.isinf(limit):
                continue
            code = int(np.clip(round(limit / scale) + point, info.min, info.max))
            if code == extreme:
                continue
            bound = self.constant(np.asarray([code], tensor.dtype), affine)
            index = self.emit(builtin, (index, bound), (self.temporary(stored.tensor, builtin.lower()),))
        self._stored[value] = replace(stored, tensor=index)

    # -- the whole --------------------------------------------------------------------------------------------
