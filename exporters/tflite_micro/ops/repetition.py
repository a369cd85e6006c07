"""Expand and Tile: a tensor stored several times over."""

from __future__ import annotations

from edgedeploy.exporters.tflite_micro.layout import identity, stored_shape
from edgedeploy.exporters.tflite_micro.lowering import Lowering
from edgedeploy.exporters.tflite_micro.qdq import Node
from edgedeploy.exporters.tflite_micro.registry import handles

#: Operands of one CONCATENATION (``kMaxInputNum`` in TFLite Micro's concatenation.cc).
MOST_COPIES = 10


@handles("Expand")
def expand(lower: Lowering, node: Node) -> None:
    """BROADCAST_TO, in the layout of the operand where it has as many axes."""
    value, output = node.input(0), node.output
    if value.shape == output.shape:
        lower.alias(output, lower.operand(value), lower.layout_of(value))
    elif value.rank == output.rank:
        layout = lower.layout_of(value)
        _broadcast(lower, lower.operand(value), stored_shape(output.shape, layout), lower.define(output, layout))
    else:
        shape = (1,) * (output.rank - value.rank) + value.shape
        source = lower.operand(value, identity(value.rank))
        if shape == output.shape:
            lower.reshape(source, shape, lower.define(output, identity(output.rank)))
            return
        padded = lower.temporary(source, "padded", shape=shape)
        lower.reshape(source, shape, padded)
        _broadcast(lower, padded, output.shape, lower.define(output, identity(output.rank)))


def tile_refusal(node: Node) -> str:
    """Repeats known beforehand, and no more copies of a longer axis than one kernel joins."""
    value = node.input(0)
    if node.input(1).data is None:
        return "its repeats are computed at run time"
    for length, times in zip(value.shape, node.constant(1).reshape(-1), strict=True):
        if length > 1 and times > MOST_COPIES:
            return f"an axis of {length} repeated {int(times)} times; the kernels join {MOST_COPIES}"
    return ""


@handles("Tile", refusal=tile_refusal)
def tile(lower: Lowering, node: Node) -> None:
    """BROADCAST_TO along axes of length 1, CONCATENATION of copies along others."""
    value, output = node.input(0), node.output
    layout = lower.layout_of(value)
    repeats = [int(times) for times in node.constant(1).reshape(-1)]
    source = lower.operand(value)
    joined = [axis for axis in layout if axis >= 0 and value.shape[axis] > 1 and repeats[axis] > 1]
    grown = [length * times if length == 1 else length for length, times in zip(value.shape, repeats, strict=True)]
    if not joined and tuple(grown) == value.shape:
        lower.alias(output, source, layout)
        return
    if tuple(grown) != value.shape:
        shape = stored_shape(grown, layout)
        wider = lower.temporary(source, "spread", shape=shape) if joined else lower.define(output, layout)
        _broadcast(lower, source, shape, wider)
        source = wider
    for axis in joined:
        grown[axis] *= repeats[axis]
        last = axis == joined[-1]
        shape = stored_shape(grown, layout)
        copies = lower.define(output, layout) if last else lower.temporary(source, f"axis{axis}", shape=shape)
        lower.emit("CONCATENATION", [source] * repeats[axis], (copies,), axis=layout.index(axis))
        source = copies


def _broadcast(lower: Lowering, source: int, shape: tuple[int, ...], output: int) -> None:
    lower.emit("BROADCAST_TO", (source, lower.vector(shape)), (output,))
