"""AveragePool with ``ceil_mode``: QNN compiles it and computes the windows that reach over the end wrongly."""

from __future__ import annotations

import onnx

from edgedeploy.exporters.snpe.rewrites.editor import Editor, attributes_of


def average_pool(node: onnx.NodeProto, editor: Editor) -> list[onnx.NodeProto] | None:
    """Spell the overhang out as end padding that does not count, which is what ``ceil_mode`` means."""
    given = dict(attributes_of(node))
    if not given.get("ceil_mode", 0):
        return None
    source, result = editor.shapes.get(node.input[0]), editor.shapes.get(node.output[0])
    kernel = list(given["kernel_shape"])
    if source is None or result is None:
        return None
    rank = len(kernel)
    pads = list(given.get("pads", [0] * 2 * rank))
    strides = list(given.get("strides", [1] * rank))
    dilations = list(given.get("dilations", [1] * rank))
    overhang = 0
    for axis in range(rank):
        reach = (result[2 + axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        missing = reach - (source[2 + axis] + pads[axis] + pads[rank + axis])
        if missing > 0:
            pads[rank + axis] += missing
            overhang += missing
    if overhang and given.get("count_include_pad", 0):
        return None  # padding that counts beside padding that does not: no plain pool says that
    given.update(ceil_mode=0, pads=pads, auto_pad="NOTSET")
    return [editor.node("AveragePool", [node.input[0]], node.output[0], near=node.output[0], **given)]
