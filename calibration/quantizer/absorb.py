"""Drop a fused Relu or Clip whose bounds the rounding to integers already enforces."""

from __future__ import annotations

from dataclasses import replace

import onnx

from edgedeploy.calibration.quantizer.plan import Plan
from edgedeploy.calibration.quantizer.selection import Selection
from edgedeploy.calibration.quantizer.topology import Topology, bounds

#: A range around zero of 255 steps lies half a step off; 65,535 steps of a float32 scale add up its rounding error.
_HALF_STEP = 0.51


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
        low, high = bounds(node, topology)
        slack = float(encoding.scale) * _HALF_STEP
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
