"""Drop a fused Relu or Clip whose bounds the rounding to integers already enforces."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx

from edgedeploy.calibration.quantizer.plan import Plan
from edgedeploy.calibration.quantizer.selection import Selection
from edgedeploy.calibration.quantizer.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Sequence


def absorb_activations(topology: Topology, selection: Selection, plan: Plan) -> Topology:
    """The topology without the fused activations that saturation replaces; the producer makes their output.

    A bound is enforced where no code lies more than half a step outside it.
    """
    renamed: dict[str, str] = {}
    for node in topology.nodes:
        if node.name not in selection.integer or node.op_type not in {"Relu", "Clip"}:
            continue
        encoding = plan.stored.get(node.output[0])
        if encoding is None or node.input[0] not in selection.inner:
            continue
        low, high = _bounds(node, topology)
        slack = float(encoding.scale) / 2
        if encoding.low >= low - slack and encoding.high <= high + slack:
            renamed[node.input[0]] = node.output[0]
    kept = []
    for node in topology.nodes:
        if node.input and node.input[0] in renamed and node.output[0] == renamed[node.input[0]]:
            continue
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for place, name in enumerate(copy.output):
            copy.output[place] = renamed.get(name, name)
        kept.append(copy)
    return replace(topology, nodes=tuple(kept))


def _bounds(node: onnx.NodeProto, topology: Topology) -> tuple[float, float]:
    if node.op_type == "Relu":
        return 0.0, math.inf
    low = topology.scalar(node.input[1]) if _given(node.input, 1) else -math.inf
    high = topology.scalar(node.input[2]) if _given(node.input, 2) else math.inf
    return low, high


def _given(inputs: Sequence[str], position: int) -> bool:
    return len(inputs) > position and bool(inputs[position])
