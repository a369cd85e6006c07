"""Clip whose bounds do not hold zero, which QNN computes wrongly before a padded convolution.

14.9 dB in the HTP simulator for V68 where the Q/DQ graph gives 36.9 dB: Clip to 0.1 … 0.9 between two convolutions.
"""

from __future__ import annotations

import onnx

from edgedeploy.exporters.snpe.rewrites.editor import Editor


def clip(node: onnx.NodeProto, editor: Editor) -> list[onnx.NodeProto] | None:
    """Give the bound beyond zero to a Max or a Min.

    clip(x, a, b) = max(clip(x, 0, b), a) where a is above 0, and min(clip(x, a, 0), b) where b is below 0.
    """
    low, high = (_bound(node, place, editor) for place in (1, 2))
    near = node.output[0]
    if low is not None and low > 0:
        op_type, beyond = "Max", low
        bounds = [editor.constant(f"{near}_zero", 0.0), *node.input[2:3]]
    elif high is not None and high < 0:
        op_type, beyond = "Min", high
        bounds = [node.input[1], editor.constant(f"{near}_zero", 0.0)]
    else:
        return None
    held = editor.node("Clip", [node.input[0], *bounds], near=near)
    bound = editor.constant(f"{near}_bound", beyond)
    return [held, editor.node(op_type, [held.output[0], bound], near, near=near)]


def _bound(node: onnx.NodeProto, place: int, editor: Editor) -> float | None:
    name = node.input[place] if len(node.input) > place else ""
    value = editor.constants.get(name)
    return None if value is None else float(value.reshape(-1)[0])
