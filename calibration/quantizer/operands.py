"""What each input of an op means to quantization: activation, weight, bias or parameter."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from edgedeploy.calibration.quantizer.topology import Topology, attribute

if TYPE_CHECKING:
    import onnx


class Role(Enum):
    """The part an operand plays."""

    ACTIVATION = "activation"
    """A run-time float tensor."""
    CONSTANT = "constant"
    """A float constant that stands where an activation could (the 2 of ``x * 2``)."""
    WEIGHT = "weight"
    BIAS = "bias"
    PARAMETER = "parameter"
    """Left as it is: indices, shapes, masks, Clip bounds, Resize scales."""


#: (weight input, bias input or None) of the ops that multiply by weights.
_WEIGHTS: dict[str, tuple[int, int | None]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (1, None),
    "LayerNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "Gather": (0, None),
}
#: Float inputs that are settings, not data.
_PARAMETERS: dict[str, frozenset[int]] = {
    "Clip": frozenset({1, 2}),
    "Dropout": frozenset({1, 2}),
    "OneHot": frozenset({1, 2}),
    "Range": frozenset({0, 1, 2}),
    "Resize": frozenset({1, 2}),
    "BatchNormalization": frozenset({1, 2, 3, 4}),
}
#: Ops without a quantized form anywhere; they read and write floats.
RECURRENT: frozenset[str] = frozenset({"GRU", "LSTM", "RNN", "If", "Loop", "Scan"})


def roles(node: onnx.NodeProto, topology: Topology) -> tuple[Role, ...]:
    """The role of every input of a node, in order; an absent optional input is a parameter."""
    weight, bias = _WEIGHTS.get(node.op_type, (-1, None))
    settings = _PARAMETERS.get(node.op_type, frozenset())
    result = []
    for position, name in enumerate(node.input):
        if not name or name not in topology.floats or position in settings:
            result.append(Role.PARAMETER)
        elif name not in topology.constants:
            result.append(Role.ACTIVATION)
        elif position == weight:
            result.append(Role.WEIGHT)
        elif position == bias:
            result.append(Role.BIAS)
        else:
            result.append(Role.CONSTANT)
    return tuple(result)


def weight_axis(node: onnx.NodeProto, rank: int, declared: int) -> int:
    """The output-channel axis of a node's weight of ``rank`` axes, non-negative; ``declared`` as the scheme has it."""
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return declared % rank
