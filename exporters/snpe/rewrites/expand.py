"""Expand: QNN multiplies by stored ones, and could not prepare one behind a ReduceL2 (as ``F.normalize`` has it)."""

from __future__ import annotations

import numpy as np
import onnx

from edgedeploy.exporters.snpe.rewrites.editor import Editor


def expand(node: onnx.NodeProto, editor: Editor) -> list[onnx.NodeProto] | None:
    """Tile along the axes that grow."""
    source, result = editor.shapes.get(node.input[0]), editor.shapes.get(node.output[0])
    if source is None or result is None:
        return None
    source = (1,) * (len(result) - len(source)) + source
    repeats = [wanted if given == 1 else 1 for given, wanted in zip(source, result, strict=True)]
    near = node.output[0]
    operand, before = node.input[0], []
    if len(source) != len(editor.shapes[operand]):
        shape = editor.constant(f"{near}_shape", np.asarray(source, np.int64))
        before = [editor.node("Reshape", [operand, shape], near=near)]
        operand = before[0].output[0]
    times = editor.constant(f"{near}_repeats", np.asarray(repeats, np.int64))
    return [*before, editor.node("Tile", [operand, times], near, near=near)]
