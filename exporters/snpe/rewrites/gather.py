"""Gather by several constant indices: QNN cannot prepare it; slices of contiguous runs say the same."""

from __future__ import annotations

import numpy as np
import onnx

from edgedeploy.exporters.snpe.rewrites.editor import Editor, attributes_of

_MOST_RUNS = 64  # beyond that the slices cost more than they save, and the op trace names the node


def gather(node: onnx.NodeProto, editor: Editor) -> list[onnx.NodeProto] | None:
    """Slice each ascending run of indices and concatenate the slices."""
    data, indices = node.input
    shape = editor.shapes.get(data)
    if data in editor.constants or indices not in editor.constants or shape is None:
        return None
    picked = editor.constants[indices]
    axis = int(attributes_of(node).get("axis", 0)) % len(shape)
    if picked.ndim != 1 or picked.size < 2:
        return None
    runs = _runs(np.where(picked < 0, picked + shape[axis], picked))
    if len(runs) > _MOST_RUNS:
        return None
    near = node.output[0]
    slices = []
    for start, stop in runs:
        bounds = [editor.constant(f"{near}_{what}", np.array([value], np.int64))
                  for what, value in (("start", start), ("stop", stop), ("axis", axis))]  # fmt: skip
        slices.append(editor.node("Slice", [data, *bounds], near if len(runs) == 1 else "", near=near))
    if len(runs) == 1:
        return slices
    return [*slices, editor.node("Concat", [part.output[0] for part in slices], near, near=near, axis=axis)]


def _runs(indices: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for index in map(int, indices):
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return runs
