"""The work of a graph on a kind of processor, as arrays: what the latency model multiplies with a device's rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedeploy.precision import Precision
from edgedeploy.targets.cost.forms import Form
from edgedeploy.targets.cost.layers import Kind, Layer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.graph.facts import OpFacts

_ATTENTION, _DEPTHWISE = 1, 2


@dataclass(frozen=True)
class Work:
    """Per layer, in execution order (float64 arrays of shape (layers,)).

    Attributes:
        macs: multiply-accumulates that the processor really does, padding included.
        unit: 1 for attention (and dense layers on sequences, where the form says so), 2 for depthwise, else 0: they
            run at rates of their own.
        vector: bytes through the vector unit.
        memory: bytes of weights, and of activations that do not fit on the chip.
        calls: how many times the layer's fixed cost is paid.
        io_kb: kilobytes (1e3) that enter and leave, as laid out.
    """

    macs: NDArray[np.float64]
    unit: NDArray[np.int64]
    vector: NDArray[np.float64]
    memory: NDArray[np.float64]
    calls: NDArray[np.float64]
    io_kb: float


def work(facts: Sequence[OpFacts], layers: Sequence[Layer], form: Form, precision: Precision) -> Work:
    """Count what ``form`` does for these layers in this precision."""
    size = precision.activation_bytes
    moved = np.array([_moved(layer, form, precision) for layer in layers], float) * size
    kept = [layer.weights * (form.winograd_weights if _winograd(layer, form, precision) < 1 else 1) for layer in layers]
    weights = np.array(kept, float) * precision.weight_bytes
    return Work(
        macs=np.array([_macs(layer, form, precision) for layer in layers], float),
        unit=np.array([_unit(layer, form) for layer in layers], np.int64),
        vector=np.array([_vector(layer, form, precision) for layer in layers], float) * size,
        memory=weights + form.spill * np.maximum(moved - form.on_chip_bytes, 0),
        calls=np.array([_calls(layer, form) for layer in layers], float),
        io_kb=_boundary(facts, form, precision) * size / 1e3,
    )


Shape = tuple[int | str, ...]


def boundary(facts: Sequence[OpFacts]) -> tuple[list[Shape], list[Shape]]:
    """Shapes of the tensors that enter the graph, and of those that nothing in it reads."""
    made = {tensor.name: tensor.shape for op in facts for tensor in op.outputs}
    entering = {tensor.name: tensor.shape for op in facts for tensor in op.inputs if tensor.name not in made}
    read = {tensor.name for op in facts for tensor in op.inputs}
    return list(entering.values()), [shape for name, shape in made.items() if name not in read]


def _boundary(facts: Sequence[OpFacts], form: Form, precision: Precision) -> float:
    entering, leaving = boundary(facts)
    into, out = (sum(_laid_out(shape, form, precision) for shape in shapes) for shapes in (entering, leaving))
    return into + form.leaving * out


def _laid_out(shape: Shape, form: Form, precision: Precision) -> float:
    sizes = [size if isinstance(size, int) else 1 for size in shape]
    elements = float(np.prod(sizes)) if sizes else 1.0
    if len(sizes) == 4 and 0 < sizes[1] <= 4 and not _is_plane(sizes[1], form, precision):
        elements *= max(form.io_channels, sizes[1]) / sizes[1]
    elif len(sizes) == 5:
        elements *= max(form.io_channels, 3) / 3
    return elements


def _is_plane(channels: int, form: Form, precision: Precision) -> bool:
    return form.planes and channels == 1 and precision.is_integer


def _padded(tensors: tuple[tuple[int, int], ...], form: Form, precision: Precision) -> float:
    """Elements of tensors as laid out, their channels padded."""
    return float(
        sum(
            elements
            if _is_plane(channels, form, precision)
            else elements // channels * _up(channels, form.tensor_lanes)
            for elements, channels in tensors
        )
    )


def _moved(layer: Layer, form: Form, precision: Precision) -> float:
    if layer.kind in form.free:
        return 0.0
    if form.tensor_lanes == 1:
        return float(layer.inputs + layer.outputs)
    return _padded(layer.read, form, precision) + _padded(layer.written, form, precision)


def _macs(layer: Layer, form: Form, precision: Precision) -> float:
    lanes = form.lanes
    factor = (form.dilation if layer.dilation > 1 else 1.0) * _winograd(layer, form, precision)
    if layer.kind is Kind.DEPTHWISE:
        return factor * layer.rows * layer.taps * _up(layer.cout, lanes)
    if layer.kind is Kind.CONV and layer.groups > 1:
        # Several small groups share one tile; a group wider than a tile is padded on both sides.
        width = layer.cout // layer.groups
        wide = _up(width, lanes) / width if layer.cin > lanes else 1.0
        return factor * layer.rows * layer.taps * _up(layer.cin, lanes) * layer.cout * wide
    if layer.kind in (Kind.CONV, Kind.LINEAR, Kind.ATTENTION):
        depth = _up(layer.cin, form.input_lanes or lanes)
        return factor * layer.rows * layer.taps * depth * _up(layer.cout, lanes)
    return float(layer.macs)


def _vector(layer: Layer, form: Form, precision: Precision) -> float:
    weight = form.vector.get(layer.kind, 0.0)
    if layer.kind is Kind.ACTIVATION and precision.is_integer:
        weight *= form.integer_activation
    if layer.kind in form.by_element:
        weight *= 2 / precision.activation_bytes
    written = float(layer.outputs) if form.tensor_lanes == 1 else _padded(layer.written, form, precision)
    if layer.kind is Kind.POOL:
        written = max(written, float(layer.inputs) if form.tensor_lanes == 1 else _padded(layer.read, form, precision))
    passes = weight * written
    return passes + form.unfold * _unfolded(layer, form, precision)


def _winograd(layer: Layer, form: Form, precision: Precision) -> float:
    same_size = layer.inputs == layer.rows * layer.cin
    if layer.taps == 9 and layer.groups == 1 and layer.cin >= 32 and same_size:
        return form.winograd[precision.is_integer]
    return 1.0


def _unfolded(layer: Layer, form: Form, precision: Precision) -> float:
    """Elements a convolution lays out before its matrix product; a 1x1 takes its input as it is."""
    if layer.kind is not Kind.CONV or layer.taps == 1:
        return 0.0
    if _winograd(layer, form, precision) < 1:
        return 36 / 16 * layer.inputs  # F(4x4, 3x3): tiles of 6x6 every 4 pixels
    return float(layer.rows * layer.taps * layer.cin * layer.groups)


def _calls(layer: Layer, form: Form) -> int:
    if layer.kind in form.free:
        return 0
    return layer.groups if form.grouped_calls and layer.kind is Kind.CONV else 1


def _unit(layer: Layer, form: Form) -> int:
    if form.sequences and layer.kind is Kind.LINEAR and layer.rows > 1:
        return _ATTENTION
    return {Kind.ATTENTION: _ATTENTION, Kind.DEPTHWISE: _DEPTHWISE}.get(layer.kind, 0)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
