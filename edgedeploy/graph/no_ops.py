"""Additions of zero and factors of one, found bit for bit: 1e-9 is no zero, and 1 + 1e-7 no one."""

from __future__ import annotations

import onnx_ir as ir

from edgedeploy.graph.ir_edit import constant

#: Of each op, the constant that changes nothing and the operands that may hold it.
_NEUTRAL: dict[str, tuple[float, tuple[int, ...]]] = {
    "Add": (0, (0, 1)),
    "Sub": (0, (1,)),
    "Mul": (1, (0, 1)),
    "Div": (1, (1,)),
    "Pow": (1, (1,)),
}


def remove_no_ops(model: ir.Model) -> bool:
    """Put the operand in the place of ``x + 0``, ``x - 0``, ``x * 1``, ``x / 1``, ``x ** 1``; True where any was.

    Only where every element of the constant is exactly neutral and it does not widen the operand's shape.
    """
    changed = False
    for node in list(model.graph.all_nodes()):
        if node.op_type == "Dropout" and not node.domain:
            kept = _dropped(node)
        else:
            kept = _kept(node) if node.op_type in _NEUTRAL and not node.domain else None
        graph = node.graph
        if kept is None or graph is None or kept.type != (node.outputs[0].type or kept.type):
            continue
        identity = ir.node("Identity", [kept], name=node.name)
        identity.metadata_props.update(node.metadata_props)
        old, new = node.outputs[0], identity.outputs[0]
        new.name, new.type, new.shape = old.name, old.type, old.shape
        graph.insert_before(node, identity)
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        changed = True
    return changed


def _kept(node: ir.Node) -> ir.Value | None:
    neutral, places = _NEUTRAL[node.op_type]
    for place in places:
        value, other = node.inputs[place], node.inputs[1 - place]
        array = constant(value)
        if array is None or other is None or not array.size or not (array == neutral).all():
            continue
        if array.ndim == 0 or _spans(other, array.shape):
            return other
    return None


def _spans(value: ir.Value, shape: tuple[int, ...]) -> bool:
    """True where broadcasting with ``shape`` leaves ``value``'s shape as it is."""
    if value.shape is None or len(value.shape) < len(shape):
        return False
    return all(size in (1, own) for size, own in zip(reversed(shape), reversed(list(value.shape)), strict=False))


def _dropped(node: ir.Node) -> ir.Value | None:
    """The input of a Dropout that is not training and whose mask nothing reads."""
    mask_read = len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output())
    training = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else False
    return None if mask_read or training is None or bool(training) else node.inputs[0]
