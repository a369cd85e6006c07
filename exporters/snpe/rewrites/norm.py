"""Vector norms: QNN computes ReduceL2 in floats, which V68 lacks; as ``F.normalize`` has it, one L2Norm does it all."""

from __future__ import annotations

import numpy as np
import onnx

from edgedeploy.exporters.snpe.rewrites.editor import Editor, attributes_of

#: A floor under the norm that only keeps a vector of zeros from dividing by zero (torch: 1e-12).
_ONLY_A_GUARD = 1e-6


def normalize(node: onnx.NodeProto, editor: Editor) -> list[onnx.NodeProto] | None:
    """LpNormalization for x / max(norm(x), epsilon); what it no longer reads is removed as dead."""
    vector, divisor = node.input
    norm = _guarded(divisor, editor)
    if norm is None or norm.op_type != "ReduceL2" or norm.input[0] != vector:
        return None
    given = attributes_of(norm)
    axes = editor.constants.get(norm.input[1]) if len(norm.input) > 1 else None
    if axes is None or axes.size != 1 or not given.get("keepdims", 1):
        return None
    near = node.output[0]
    return [editor.node("LpNormalization", [vector], near, near=near, axis=int(axes.reshape(-1)[0]), p=2)]


def reduce_l2(node: onnx.NodeProto, editor: Editor) -> list[onnx.NodeProto]:
    """Any other norm: the root of the sum of squares."""
    near = node.output[0]
    square = editor.node("Mul", [node.input[0], node.input[0]], near=near)
    total = editor.node("ReduceSum", [square.output[0], *node.input[1:]], near=near, **attributes_of(node))
    return [square, total, editor.node("Sqrt", [total.output[0]], near, near=near)]


def _guarded(name: str, editor: Editor) -> onnx.NodeProto | None:
    """The node behind ``name``, before it was spread out (Expand) and kept from zero (Clip, Max, Add)."""
    node = editor.producers.get(name)
    while node is not None and node.op_type in ("Expand", "Clip", "Max", "Add"):
        if node.op_type != "Expand":
            upper = len(node.input) > 2 and node.op_type == "Clip" and node.input[2]
            floor = editor.constants.get(node.input[1]) if len(node.input) > 1 else None
            if upper or floor is None or floor.size != 1 or not 0 <= float(np.ravel(floor)[0]) <= _ONLY_A_GUARD:
                return None
        node = editor.producers.get(node.input[0])
    return node
