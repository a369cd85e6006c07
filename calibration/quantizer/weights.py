"""Encodings of weights and integer biases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedeploy.calibration.quantizer.encoding import Encoding, holds_bias, weight_encoding
from edgedeploy.calibration.quantizer.octaves import spaced
from edgedeploy.calibration.quantizer.operands import Role, weight_axis
from edgedeploy.calibration.quantizer.selection import Selection
from edgedeploy.calibration.quantizer.topology import Topology, attribute
from edgedeploy.calibration.scheme import IntegerFormat, Scheme
from edgedeploy.errors import InputError

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

_BIAS_FORMAT = IntegerFormat(bits=32, symmetric=True)


def plan_weights(
    node: onnx.NodeProto,
    parts: tuple[Role, ...],
    topology: Topology,
    scheme: Scheme,
    selection: Selection,
    read: Mapping[tuple[str, int], Encoding],
    constants: dict[tuple[str, int], Encoding],
    earlier: Mapping[tuple[str, int], Encoding],
) -> None:
    """Enter in ``constants`` the encodings of a node's weight and, where the scheme has integer biases, its bias.

    ``earlier`` are those of a plan with the same weights and other biases: they stay where they hold the new ones.
    """
    data = read.get((node.name, 0))
    input_scale = None if data is None or scheme.bias == "float32" else float(data.scale)
    bias = None if input_scale is None else _bias(node, parts, topology, selection)
    groups = int(attribute(node, "group", 1)) if node.op_type == "ConvTranspose" else 1
    if Role.WEIGHT in parts:
        position = parts.index(Role.WEIGHT)
        values = topology.value(node.input[position])
        if not np.isfinite(values).all():
            raise InputError(
                f"Weight {node.input[position]!r} of {node.name!r} holds NaN or infinity.",
                remedy="Repair the model: no integer format can hold it.",
            )
        form = scheme.weight_format(node.op_type, node.name)
        axis = weight_axis(node, values.ndim, scheme.weight_axis.get(node.op_type, 0)) if form.per_channel else None
        largest = None if bias is None else _largest_per_scale(topology.value(bias.tensor), groups)
        found = earlier.get((node.name, position))
        if found is not None and holds_bias(found, largest, input_scale):
            encoding = found
        else:
            encoding = weight_encoding(values, form, axis, largest, input_scale)
            if scheme.octave_weight_scales and axis is not None and data is not None and data.format.bits > form.bits:
                encoding = spaced(encoding, values, largest, input_scale)
        constants[node.name, position] = encoding
        scales = np.tile(encoding.scale, groups) if encoding.scale.ndim else encoding.scale
    elif (node.name, 1) in read:
        scales = read[node.name, 1].scale
    else:
        return
    if bias is not None and input_scale is not None:
        product = np.asarray(scales.astype(np.float64) * input_scale, np.float32)
        axis = None if product.ndim == 0 else topology.value(bias.tensor).ndim - 1
        constants[bias.edge] = Encoding(product, np.zeros(product.shape, np.int64), _BIAS_FORMAT, axis)


@dataclass(frozen=True)
class _Bias:
    edge: tuple[str, int]
    tensor: str


def _bias(node: onnx.NodeProto, parts: tuple[Role, ...], topology: Topology, selection: Selection) -> _Bias | None:
    """The constant that the integer accumulator starts from: an operand, or that of a fused Add."""
    if Role.BIAS in parts:
        position = parts.index(Role.BIAS)
        return _Bias((node.name, position), node.input[position])
    for reader, position in topology.consumers.get(node.output[0], ()):
        if reader.name in selection.biases:
            return _Bias((reader.name, 1 - position), reader.input[1 - position])
    return None


def _largest_per_scale(bias: NDArray[np.float32], groups: int) -> NDArray[np.float32]:
    """Magnitudes of the biases; a grouped ConvTranspose has one weight scale for the same channel of every group."""
    magnitudes: NDArray[np.float32] = np.abs(bias.reshape(groups, -1)).max(axis=0)
    return magnitudes
