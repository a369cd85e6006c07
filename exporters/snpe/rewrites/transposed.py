"""Grouped ConvTranspose: QNN refuses some, and computes the depthwise one wrongly (-11 dB in the simulator for V68)."""

from __future__ import annotations

import numpy as np
import onnx

from edgedeploy.exporters.snpe.rewrites.editor import Editor, attributes_of


def ungroup(node: onnx.NodeProto, editor: Editor) -> list[onnx.NodeProto] | None:
    """One group whose weights are block-diagonal: exact, at the price of stored zeros."""
    given = dict(attributes_of(node))
    groups = int(given.get("group", 1))
    weights = editor.constants.get(node.input[1])
    if groups == 1 or weights is None:
        return None
    inputs, each = weights.shape[0] // groups, weights.shape[1]
    dense = np.zeros((weights.shape[0], each * groups, *weights.shape[2:]), weights.dtype)
    for group in range(groups):
        rows = slice(group * inputs, (group + 1) * inputs)
        dense[rows, group * each : (group + 1) * each] = weights[rows]
    given["group"] = 1
    operands = [node.input[0], editor.constant(f"{node.input[1]}_dense", dense), *node.input[2:]]
    return [editor.node("ConvTranspose", operands, node.output[0], near=node.output[0], **given)]
