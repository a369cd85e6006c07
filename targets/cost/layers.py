"""What a device executes: the graph's ops after the fusion that every backend does, each with its work.

Batch norms are already folded. Reshapes cost nothing; a bias, ReLU, Clip or PReLU belongs to the layer before it;
``x * sigmoid(x)`` is one activation. The same function reads a captured graph and the networks of the fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgedeploy.graph.facts import OpFacts
    from edgedeploy.tensors import TensorSpec


class Kind(StrEnum):
    """How a layer spends its time."""

    CONV = "convolution"
    DEPTHWISE = "depthwise"
    LINEAR = "linear"
    ATTENTION = "attention"
    """A matrix product of two activations."""
    RECURRENT = "recurrent"
    ELEMENTWISE = "element-wise"
    ACTIVATION = "activation"
    """One that no backend fuses everywhere: SiLU, GELU, h-swish, sigmoid, tanh."""
    SOFTMAX = "softmax"
    NORM = "normalization"
    POOL = "pooling"
    RESIZE = "resize"
    PERMUTE = "permute"
    LAYOUT = "layout change"
    """A transpose between channels first and channels last: nothing where the processor keeps channels last anyway."""
    MOVE = "data movement"
    OTHER = "unknown"
    """An op that the model has no class for: counted as memory-bound, and listed."""


@dataclass(frozen=True)
class Layer:
    """One executed layer.

    Attributes:
        name: of the first op in it.
        ops: the op types fused into it, in order.
        macs: multiply-accumulates.
        inputs, outputs, weights: elements read, written and kept; an input that is read twice counts twice.
        cin: input channels of one group; cout: output channels of all; groups; taps: kernel positions.
        dilation: the largest.
        rows: output positions or rows that share one set of weights.
        read, written: (elements, channels) of every tensor, for processors that pad channels.
    """

    name: str
    ops: tuple[str, ...]
    kind: Kind
    macs: int
    inputs: int
    outputs: int
    weights: int
    cin: int = 1
    cout: int = 1
    groups: int = 1
    taps: int = 1
    dilation: int = 1
    rows: int = 1
    read: tuple[tuple[int, int], ...] = ()
    written: tuple[tuple[int, int], ...] = ()


FREE_OPS = frozenset(
    {"Reshape", "Identity", "Unsqueeze", "Squeeze", "Flatten", "Dropout", "Shape", "Constant", "Cast", "Expand"}
)
FUSED_OPS = frozenset({"Relu", "Clip", "LeakyRelu", "PRelu"})
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), Kind.CONV),
    **dict.fromkeys(("Gemm", "MatMul", "Einsum"), Kind.LINEAR),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), Kind.RECURRENT),
    **dict.fromkeys(
        ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Sqrt", "Neg", "Abs", "Reciprocal", "Where", "Equal", "Not",
         "And", "Or", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Relu", "Clip", "LeakyRelu", "PRelu", "Sum",
         "Floor", "Ceil", "Round", "Sign", "BatchNormalization", "Mod"),
        Kind.ELEMENTWISE,
    ),
    **dict.fromkeys(
        ("Sigmoid", "Tanh", "Swish", "Gelu", "Mish", "HardSwish", "HardSigmoid", "Elu", "Selu", "Softplus", "Erf",
         "Exp", "Log", "Sin", "Cos", "Softsign", "Celu"),
        Kind.ACTIVATION,
    ),
    **dict.fromkeys(("Softmax", "LogSoftmax"), Kind.SOFTMAX),
    **dict.fromkeys(
        ("LayerNormalization", "GroupNormalization", "InstanceNormalization", "LpNormalization", "RMSNormalization"),
        Kind.NORM,
    ),
    **dict.fromkeys(
        ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceMax",
         "ReduceMin", "ReduceL1", "ReduceL2", "ReduceProd", "ReduceSumSquare", "ArgMax", "ArgMin", "TopK", "CumSum"),
        Kind.POOL,
    ),
    **dict.fromkeys(("Resize", "DepthToSpace", "SpaceToDepth"), Kind.RESIZE),
    "Transpose": Kind.PERMUTE,
    **dict.fromkeys(
        ("Concat", "Split", "Slice", "Pad", "Gather", "GatherElements", "GatherND", "Tile", "ScatterND", "OneHot",
         "Range", "ConstantOfShape", "Trilu"),
        Kind.MOVE,
    ),
}  # fmt: skip


#: Transposes between channels first and channels last, images, volumes and flattened images.
_LAYOUTS = frozenset({(0, 2, 3, 1), (0, 3, 1, 2), (0, 2, 3, 4, 1), (0, 4, 1, 2, 3), (0, 2, 1)})
#: Ops that give channels first, whatever they read; those after which a tensor is an image no more.
_IMAGES = frozenset(
    {"Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Resize", "DepthToSpace",
     "SpaceToDepth", "BatchNormalization", "GroupNormalization", "InstanceNormalization"}
)  # fmt: skip
_SEQUENCES = frozenset(
    {"Reshape", "Gemm", "MatMul", "Transpose", "Flatten", "LayerNormalization", "Unsqueeze", "Squeeze"}
)


def _channels_first(facts: Sequence[OpFacts]) -> frozenset[str]:
    """Names of the tensors whose channels are their second axis; those of all others are their last."""
    made = {tensor.name for op in facts for tensor in op.outputs}
    found = {tensor.name for op in facts for tensor in op.inputs if tensor.name not in made and len(tensor.shape) > 3}
    for op in facts:
        if op.op_type in _SEQUENCES:
            images = op.attributes.get("perm") in ((0, 3, 1, 2), (0, 4, 1, 2, 3))
        else:
            images = op.op_type in _IMAGES or any(tensor.name in found for tensor in op.inputs)
        if images:
            found.update(tensor.name for tensor in op.outputs if len(tensor.shape) > 3)
    return frozenset(found)


def layers(facts: Iterable[OpFacts]) -> tuple[Layer, ...]:
    """Fuse a graph's ops into the layers a device executes, in execution order."""
    found: list[Layer] = []
    made_by: dict[str, int] = {}
    sigmoid_of: dict[int, str] = {}
    readers: dict[str, int] = {}
    facts = tuple(facts)
    images = _channels_first(facts)
    for op in facts:
        for tensor in op.inputs:
            readers[tensor.name] = readers.get(tensor.name, 0) + 1
    for op in facts:
        before = made_by.get(op.inputs[0].name) if op.inputs else None
        target = _fuses_into(op, found, made_by, sigmoid_of, readers)
        if target is not None:
            found[target] = _with_op(found[target], op)
        elif op.op_type in FREE_OPS:
            target = before
        else:
            target = len(found)
            found.append(_laid_out(_layer(op), op, images))
            if op.op_type in ("Sigmoid", "HardSigmoid") and op.inputs:
                sigmoid_of[target] = op.inputs[0].name
        if target is not None:
            made_by.update({tensor.name: target for tensor in op.outputs})
    return tuple(found)


def _fuses_into(
    op: OpFacts, found: list[Layer], made_by: dict[str, int], sigmoid_of: dict[int, str], readers: dict[str, int]
) -> int | None:
    """The layer that already made this op's input and takes the op in; ``None`` where it stands alone."""
    sources = [made_by.get(tensor.name) for tensor in op.inputs]
    if op.op_type == "Mul" and len(sources) == 2:
        names = [tensor.name for tensor in op.inputs]
        for source, other in zip(sources, names[::-1], strict=True):
            if source is not None and sigmoid_of.get(source) == other:
                return source
    if len(sources) != 1 or sources[0] is None or readers.get(op.inputs[0].name, 0) > 1:
        return None
    target = found[sources[0]]
    if op.op_type in FUSED_OPS and target.kind not in (Kind.PERMUTE, Kind.LAYOUT):
        return sources[0]
    is_bias = op.op_type == "Add" and bool(op.weights) and target.kind in (Kind.LINEAR, Kind.CONV, Kind.DEPTHWISE)
    return sources[0] if is_bias else None


def _with_op(layer: Layer, op: OpFacts) -> Layer:
    kind = Kind.ACTIVATION if layer.kind is Kind.ACTIVATION else layer.kind
    return replace(layer, ops=(*layer.ops, op.op_type), weights=layer.weights + op.parameters, kind=kind)


def _laid_out(layer: Layer, op: OpFacts, images: frozenset[str]) -> Layer:
    written = tuple(_channels(tensor, tensor.name in images) for tensor in op.outputs)
    if layer.kind is Kind.MOVE and layer.inputs == layer.outputs:
        return replace(layer, read=written, written=written)
    return replace(layer, read=tuple(_channels(tensor, tensor.name in images) for tensor in op.inputs), written=written)


def _channels(tensor: TensorSpec, first: bool) -> tuple[int, int]:
    size = tensor.shape[1 if first else -1] if tensor.shape else 1
    return tensor.elements, size if isinstance(size, int) and size > 0 else 1


def _layer(op: OpFacts) -> Layer:
    kind = _KINDS.get(op.op_type, Kind.OTHER)
    if kind is Kind.PERMUTE and op.attributes.get("perm") in _LAYOUTS:
        kind = Kind.LAYOUT
    inputs = sum(tensor.elements for tensor in op.inputs)
    outputs = sum(tensor.elements for tensor in op.outputs)
    weights = op.parameters
    plain = Layer(op.name, (op.op_type,), kind, op.macs, inputs, outputs, weights)
    if op.op_type in ("Conv", "ConvTranspose") and op.weights:
        return _convolution(op, plain)
    if kind is Kind.LINEAR:
        return _linear(op, plain)
    if kind is Kind.MOVE and op.op_type in ("Gather", "Slice", "Split"):
        # A lookup reads what it gives, not the whole table.
        return replace(plain, inputs=outputs, weights=min(weights, outputs))
    return plain


def _convolution(op: OpFacts, plain: Layer) -> Layer:
    shape = tuple(int(size) for size in op.weights[0].shape)
    groups = _number(op.attributes.get("group", 1))
    transposed = op.op_type == "ConvTranspose"
    cin = shape[0] // groups if transposed else shape[1]
    cout = shape[1] * groups if transposed else shape[0]
    depthwise = groups > 1 and cin == 1
    return replace(
        plain,
        kind=Kind.DEPTHWISE if depthwise else Kind.CONV,
        cin=cin,
        cout=cout,
        groups=groups,
        taps=prod(shape[2:]),
        dilation=max(_numbers(op.attributes.get("dilations", 1))),
        rows=max(1, (plain.inputs // max(1, cin * groups)) if transposed else plain.outputs // max(1, cout)),
    )


def _linear(op: OpFacts, plain: Layer) -> Layer:
    if not op.outputs or not op.inputs:
        return plain
    columns = op.outputs[0].shape[-1] if op.outputs[0].shape else 1
    cout = columns if isinstance(columns, int) else 1
    rows = max(1, plain.outputs // max(1, cout))
    cin = max(1, op.macs // max(1, plain.outputs))
    has_matrix = any(len(weight.shape) >= 2 for weight in op.weights)
    return replace(plain, kind=Kind.LINEAR if has_matrix else Kind.ATTENTION, cin=cin, cout=cout, rows=rows)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 1


def _numbers(value: object) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (_number(value),)
