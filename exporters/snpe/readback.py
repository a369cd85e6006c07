"""Hold a DLC against the Q/DQ graph it was made from: ops, names, boundary, every weight, every encoding.

QNN stores images channels-last, so a convolution's weights are permuted, and one over a single axis gets a second of
length 1; each is compared through the permutation that its shape allows. Activations keep the name of the quantized
tensor, or of the QuantizeLinear node that makes it. A LeakyRelu's slope becomes a weight of a Prelu.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import numpy_helper

from edgedeploy.errors import ToolFailedError
from edgedeploy.exporters.snpe.checks import BACKEND
from edgedeploy.exporters.snpe.dlc.model import Dlc, DlcGraph, DlcTensor, Encoding, Role
from edgedeploy.exporters.snpe.qnn.trace import OpTrace

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

_BOUNDARY = frozenset({"Quantize", "Dequantize"})
#: What QNN's graph builder appends to the name of a tensor that it stores in another layout.
_APPENDED = ("_QuantizeLinear", "_out0", "_transpose", "_reshape", "_reshape_after", "_conv")
_SLOPE = "_alpha"


@dataclass(frozen=True)
class ReadBack:
    """What was compared and found equal."""

    nodes: int
    weights: int
    weight_bytes: int
    encodings: int
    plain_tables: int


@dataclass(frozen=True)
class _Quantized:
    """One quantization of the Q/DQ graph; ``values`` only for weights."""

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    values: NDArray[Any] | None = None


def check_readback(parts: Sequence[Dlc], model: onnx.ModelProto, trace: OpTrace) -> ReadBack:
    """Compare; what differs is one `ToolFailedError` that lists it (the first ten).

    Args:
        parts: the file as read; several where nodes were left to the CPU, and then without the model's boundary.
        model: the Q/DQ model that was compiled.
        trace: the compiler's own list of the ops it placed.

    """
    problems: list[str] = []
    for dlc in parts:
        if len(dlc.graphs) != 1:
            raise _mismatch([f"{len(dlc.graphs)} graphs, expected 1"])
    graphs = [dlc.graphs[0] for dlc in parts]
    problems += _ops([node.name for graph in graphs for node in graph.nodes], trace)
    if len(graphs) == 1:
        problems += _interface(graphs[0], model)
    weights, activations = _quantizations(model)
    slopes = _slopes(model)
    compared, size, checked, tables = 0, 0, 0, 0
    for graph in graphs:
        for name, tensor in graph.tensors.items():
            if tensor.role is Role.STATIC and tensor.encoding is not None:
                stored = graph.parameters[name]
                problems += _slope(tensor, stored, slopes) if name in slopes else _weight(tensor, stored, weights)
                compared, size = compared + 1, size + graph.parameters[name].nbytes
        seen, wrong = _activations(graph, activations)
        problems, checked = problems + wrong, checked + seen
        tables += sum(1 for tensor in graph.by_role(Role.STATIC) if tensor.encoding is None)
    if problems:
        raise _mismatch(problems)
    return ReadBack(sum(len(graph.nodes) for graph in graphs), compared, size, checked, tables)


def float_ops(dlc: Dlc) -> list[tuple[str, str, str]]:
    """(op type, node, reason) of every op but the boundary's that touches a float tensor."""
    found = []
    for graph in dlc.graphs:
        for node in graph.nodes:
            if node.op_type in _BOUNDARY:
                continue
            floats = [name for name in (*node.inputs, *node.outputs) if name and graph.tensors[name].is_float]
            if floats:
                found.append(
                    (node.op_type, node.name, f"{floats[0]} is floating-point, and this Hexagon has no such path")
                )
    return found


def _ops(stored: Sequence[str], trace: OpTrace) -> list[str]:
    problems = [] if len(stored) == trace.mapped else [f"{len(stored)} ops, the compiler placed {trace.mapped}"]
    return problems + [f"op {name!r} is missing" for name in sorted(set(trace.sources) - set(stored))]


def _interface(graph: DlcGraph, model: onnx.ModelProto) -> list[str]:
    problems = []
    for role, values in ((Role.INPUT, model.graph.input), (Role.OUTPUT, model.graph.output)):
        stored = {tensor.name: tensor for tensor in graph.by_role(role)}
        wanted = {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in values}
        if stored.keys() != wanted.keys():
            problems.append(f"{role}s {sorted(stored)}, expected {sorted(wanted)}")
            continue
        problems += [
            f"{role} {name!r} has shape {stored[name].shape}, expected {shape}"
            for name, shape in wanted.items()
            if stored[name].shape != shape
        ]
    return problems


def _quantizations(model: onnx.ModelProto) -> tuple[dict[str, _Quantized], dict[str, list[_Quantized]]]:
    """Weights by initializer name; activations by every name under which the DLC may know them."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    weights: dict[str, _Quantized] = {}
    activations: dict[str, list[_Quantized]] = {}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale = numpy_helper.to_array(constants[node.input[1]])
        has_zero = len(node.input) > 2 and node.input[2]
        zero = numpy_helper.to_array(constants[node.input[2]]).astype(np.int64) if has_zero else np.zeros(scale.shape)
        stored = constants.get(node.input[0])
        if stored is not None:
            weights[stored.name] = _Quantized(scale, zero, numpy_helper.to_array(stored))
            continue
        inner = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
        for name in (inner, node.name, *((node.input[0],) if node.op_type == "QuantizeLinear" else node.output)):
            activations.setdefault(name, []).append(_Quantized(scale, zero))
    return weights, activations


def _weight(tensor: DlcTensor, stored: NDArray[Any], weights: Mapping[str, _Quantized]) -> list[str]:
    source = next((weights[name] for name in _sources(tensor.name) if name in weights), None)
    if source is None or source.values is None:
        return [f"weight {tensor.name!r} is not in the quantized graph"]
    if tensor.encoding is None or not _same_encoding(tensor.encoding, source):
        return [f"weight {tensor.name!r} has other scales than the quantized graph"]
    flat = stored.astype(np.int64)
    values = source.values.astype(np.int64)
    if flat.size == values.size and any(np.array_equal(flat, option) for option in _layouts(values, flat.shape)):
        return []
    return [f"weight {tensor.name!r} differs from the quantized graph's"]


def _slopes(model: onnx.ModelProto) -> dict[str, float]:
    """Every LeakyRelu's slope, by the name that QNN's graph builder gives the weight it makes of it."""
    found = {}
    for node in model.graph.node:
        if node.op_type == "LeakyRelu":
            given = {attribute.name: attribute.f for attribute in node.attribute}
            found[node.name + _SLOPE] = given.get("alpha", 0.01)
    return found


def _slope(tensor: DlcTensor, stored: NDArray[Any], slopes: Mapping[str, float]) -> list[str]:
    wanted = slopes[tensor.name]
    encoding = tensor.encoding
    if encoding is not None and len(encoding.scales) == 1:
        scale, zero = encoding.scales[0], encoding.zero_points[0]
        if np.all(np.abs((stored.astype(np.int64) - zero) * scale - wanted) <= scale / 2):
            return []
    return [f"slope {tensor.name!r} is not the {wanted:.6g} of the quantized graph"]


def _layouts(values: NDArray[np.int64], shape: tuple[int, ...]) -> list[NDArray[np.int64]]:
    """``values`` in every order of its axes that gives ``shape`` (axes of length 1 aside), and plainly reshaped."""
    options = [values.reshape(shape)]
    bare = values.squeeze()
    wanted = tuple(length for length in shape if length != 1)
    if bare.ndim == len(wanted) and bare.ndim <= 5:
        for order in itertools.permutations(range(bare.ndim)):
            if tuple(bare.shape[axis] for axis in order) == wanted:
                options.append(bare.transpose(order).reshape(shape))
    return options


def _activations(graph: DlcGraph, sources: Mapping[str, list[_Quantized]]) -> tuple[int, list[str]]:
    """Check every encoded run-time tensor; one that QNN made by moving another has that one's encoding."""
    problems, checked = [], 0
    writers = {name: node for node in graph.nodes for name in node.outputs}
    for tensor in graph.tensors.values():
        if tensor.role is Role.STATIC or tensor.encoding is None:
            continue
        checked += 1
        known = [source for name in _sources(tensor.name) for source in sources.get(name, ())]
        if any(_same_encoding(tensor.encoding, source) for source in known):
            continue
        if known:
            problems.append(f"activation {tensor.name!r} has another encoding than the quantized graph")
            continue
        writer = writers.get(tensor.name)
        origins = [graph.tensors[name].encoding for name in (writer.inputs if writer else ()) if name]
        if tensor.encoding not in origins:
            problems.append(f"activation {tensor.name!r} has an encoding that the quantized graph does not know")
    return checked, problems


def _sources(name: str) -> tuple[str, ...]:
    """A DLC tensor's possible names in the graph: its own, or that before what QNN appended to a copy."""
    stem = name.split("_token_", maxsplit=1)[0]
    return (name, stem, *(stem.removesuffix(suffix) for suffix in _APPENDED))


def _same_encoding(stored: Encoding, source: _Quantized) -> bool:
    scales = np.asarray(stored.scales, np.float32)
    zero_points = np.asarray(stored.zero_points, np.int64)
    wanted = np.atleast_1d(source.scale)
    zero = np.broadcast_to(np.atleast_1d(source.zero_point), wanted.shape)
    return np.array_equal(scales, wanted) and np.array_equal(zero_points, zero)


def _mismatch(problems: list[str]) -> ToolFailedError:
    more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
    return ToolFailedError(
        f"The DLC that {BACKEND} tools wrote is not the quantized graph it was made from.",
        found="; ".join(problems[:10]) + more,
        remedy="Do not ship it. Reinstall onnxruntime-qnn 2.7.0, or convert with the Qualcomm SDK.",
    )
