"""Integer and boolean masks in float arithmetic, since a cast inside the graph leaves the Hexagon's integers.

A mask holds 0 or 1. An attention mask that adds a huge negative number where it is 0 gets `MASKED` instead: with the
smallest float, one 8- or 16-bit scale would have to span 3e38, and every unmasked score would round to nothing.
exp(-100) is 0 in any precision that a softmax has here.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from edgedeploy.exporters.snpe.rewrites.editor import Editor, attributes_of

MASKED = -100.0
_HUGE = 1e4  # no score that matters is that large; masks use -10000, -1e9 or the smallest float
_INTEGERS = frozenset({TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL, TensorProto.UINT8, TensorProto.INT8})
_MOVES = frozenset({"Unsqueeze", "Squeeze", "Reshape", "Expand", "Transpose", "Flatten", "Identity", "Slice"})
_LOGIC = frozenset({"And", "Or", "Not", "Where", "Cast", "GatherND"})


def mask_inputs(model: onnx.ModelProto) -> list[str]:
    """Names of integer or boolean graph inputs that only ever act as a 0/1 mask."""
    editor = Editor(model)
    found = []
    for value in model.graph.input:
        if editor.dtypes[value.name] in _INTEGERS and _only_masks(value.name, model, editor):
            found.append(value.name)
    return found


def _only_masks(name: str, model: onnx.ModelProto, editor: Editor) -> bool:
    pending, seen, casts = [name], set(), 0
    while pending:
        current = pending.pop()
        for node in model.graph.node:
            if current not in node.input or node.name in seen:
                continue
            seen.add(node.name)
            if node.op_type == "Cast":
                casts += 1
                if attributes_of(node)["to"] in _INTEGERS:
                    pending += node.output
            elif node.op_type == "Where" and node.input[0] == current:
                continue
            elif node.op_type in _MOVES | {"And", "Or", "Not"} or (
                node.op_type == "GatherND" and node.input[0] == current and node.input[1] in editor.constants
            ):
                pending += node.output
            else:
                return False
    return casts > 0 or bool(seen)


def float_masks(model: onnx.ModelProto, names: list[str]) -> None:
    """Make the named inputs float32 and rewrite in place what is derived from them."""
    if not names:
        return
    editor = Editor(model)
    masks = set(names)
    for value in model.graph.input:
        if value.name in masks:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    rewritten: list[onnx.NodeProto] = []
    for node in model.graph.node:
        made = _in_floats(node, masks, editor)
        rewritten += [node] if made is None else made
    del model.graph.node[:]
    model.graph.node.extend(rewritten)
    for info in model.graph.value_info:
        if info.name in masks:
            info.type.tensor_type.elem_type = TensorProto.FLOAT


def _in_floats(node: onnx.NodeProto, masks: set[str], editor: Editor) -> list[onnx.NodeProto] | None:
    """What replaces ``node``; ``None`` where it has nothing to do with a mask or only moves one."""
    if not any(name in masks for name in node.input):
        return None
    out = node.output[0]
    if node.op_type == "Where" and node.input[0] in masks:
        return _where(node, editor)
    if node.op_type in _MOVES:
        masks.add(out)
        return None
    if node.op_type == "Cast":
        if attributes_of(node)["to"] in _INTEGERS:
            masks.add(out)
        return [editor.node("Identity", [node.input[0]], out, near=out)]
    if node.op_type == "GatherND":
        masks.add(out)
        return _in_order(node, editor)
    if node.op_type == "Not":
        masks.add(out)
        return [editor.node("Sub", [editor.constant(f"{out}_one", 1.0), node.input[0]], out, near=out)]
    if node.op_type in ("And", "Or"):
        masks.add(out)
        left, right = (_as_float(name, editor) for name in node.input)
        for constant, other in ((left, right), (right, left)):
            value = editor.constants.get(constant)
            if value is not None and value.all() == (node.op_type == "And") and value.all() == value.any():
                return [_shaped(other, out, editor)]
        return [editor.node("Mul" if node.op_type == "And" else "Max", [left, right], out, near=out)]
    return None


def _shaped(source: str, out: str, editor: Editor) -> onnx.NodeProto:
    """``source`` as ``out``, which may be larger after broadcasting with a constant."""
    shape = editor.shapes.get(out)
    if shape is None or editor.shapes.get(source) == shape or _broadcast_later(out, editor):
        return editor.node("Identity", [source], out, near=out)
    if int(np.prod(shape)) == int(np.prod(editor.shapes.get(source, ()))):
        return editor.node("Reshape", [source, editor.constant(f"{out}_shape", np.array(shape))], out, near=out)
    return editor.node("Expand", [source, editor.constant(f"{out}_shape", np.array(shape))], out, near=out)


def _broadcast_later(name: str, editor: Editor) -> bool:
    """True where ``name`` only chooses what is added to a full-sized tensor, so that it need not be expanded itself."""
    choices = [node for node in editor.model.graph.node if name in node.input]
    added = {output for node in choices for output in node.output}
    uses = [node for node in editor.model.graph.node if added.intersection(node.input)]
    return (
        bool(uses)
        and all(node.op_type == "Where" and node.input[0] == name for node in choices)
        and all(editor.shapes.get(other, ()) in ((), (1,)) for node in choices for other in node.input[1:])
        and all(node.op_type == "Add" for node in uses)
    )


def _as_float(name: str, editor: Editor) -> str:
    value = editor.constants.get(name)
    return name if value is None else editor.constant(f"{name}_float", value.astype(np.float32))


def _in_order(node: onnx.NodeProto, editor: Editor) -> list[onnx.NodeProto] | None:
    """GatherND that picks every element in its own order only reshapes."""
    source, indices = editor.shapes.get(node.input[0]), editor.constants.get(node.input[1])
    shape = editor.shapes.get(node.output[0])
    if source is None or indices is None or shape is None or attributes_of(node).get("batch_dims", 0):
        return None
    if indices.shape[-1] != len(source):
        return None
    flat = np.ravel_multi_index(tuple(np.moveaxis(indices, -1, 0).reshape(len(source), -1)), source)
    if not np.array_equal(flat, np.arange(int(np.prod(source)))):
        return None
    return [_shaped(node.input[0], node.output[0], editor)]


def _where(node: onnx.NodeProto, editor: Editor) -> list[onnx.NodeProto]:
    """where(m, a, b) = b + m * (a - b), huge values brought to `MASKED`."""
    mask, near = node.input[0], node.output[0]
    chosen, other = (_bounded(name, editor) for name in node.input[1:])
    first, second = editor.constants.get(chosen), editor.constants.get(other)
    if first is not None and second is not None:
        step = (first - second).astype(np.float32)
        scaled = editor.node("Mul", [mask, editor.constant(f"{near}_step", step)], near=near)
        total = editor.node("Add", [scaled.output[0], other], near=near)  # another tensor: its range is another
        return [scaled, total, editor.node("Identity", [total.output[0]], near, near=near)]
    inverse = editor.node("Sub", [editor.constant(f"{near}_one", 1.0), mask], near=near)
    kept = editor.node("Mul", [chosen, mask], near=near)
    replaced = editor.node("Mul", [other, inverse.output[0]], near=near)
    return [inverse, kept, replaced, editor.node("Add", [kept.output[0], replaced.output[0]], near, near=near)]


def _bounded(name: str, editor: Editor) -> str:
    value = editor.constants.get(name)
    if value is None or not np.issubdtype(value.dtype, np.floating) or not value.size or np.abs(value).max() < _HUGE:
        return name
    bounded = np.where(np.abs(value) >= _HUGE, -np.sign(value) * MASKED, value).astype(np.float32)
    if bounded.size > 1 and (bounded == bounded.reshape(-1)[0]).all():
        bounded = bounded.reshape(-1)[:1].reshape(())
    return editor.constant(f"{name}_bounded", bounded)
