"""Activations that torch.onnx writes out as arithmetic, by the one op that they are.

One op is one table on a microcontroller and one rounding in integers; the parts are several, some without a kernel.
"""

from __future__ import annotations

import onnx_ir as ir

from edgedeploy.graph.ir_edit import producer, redirect, replace, scalar

#: Above this softplus(x) is x in float32: log1p(exp(-17)) is below half a unit in the last place of 17.
_LINEAR_FROM = 17.0


def name_activations(model: ir.Model) -> bool:
    """Recognise Softplus with its switch to the identity, Softsign, and the log of a Sigmoid; True where any was."""
    changed = False
    for node in list(model.graph):
        if node.op_type == "Where":
            changed |= _softplus(model.graph, node)
        elif node.op_type == "Div":
            changed |= _softsign(model.graph, node)
        elif node.op_type == "Log":
            changed |= _log_sigmoid(model.graph, node)
    return changed


def _softplus(graph: ir.Graph, where: ir.Node) -> bool:
    """Where(x > threshold, x, Softplus(x)), which keeps torch's exponential from overflowing; ONNX's does not."""
    test, linear, soft = where.inputs
    greater, activation = producer(test, "Greater"), producer(soft, "Softplus")
    if greater is None or activation is None or soft is None:
        return False
    threshold = scalar(greater.inputs[1])
    if greater.inputs[0] is not linear or activation.inputs[0] is not linear or threshold is None:
        return False
    if threshold < _LINEAR_FROM:
        return False
    redirect(where.outputs[0], soft)
    graph.remove(where, safe=True)
    return True


def _softsign(graph: ir.Graph, divide: ir.Node) -> bool:
    """Softsign: x / (1 + |x|)."""
    total = producer(divide.inputs[1], "Add")
    if total is None:
        return False
    for one, other in (tuple(total.inputs), tuple(reversed(total.inputs))):
        size = producer(other, "Abs")
        if scalar(one) == 1.0 and size is not None and size.inputs[0] is divide.inputs[0]:
            replace(graph, divide, "Softsign", [divide.inputs[0]])
            return True
    return False


def _log_sigmoid(graph: ir.Graph, log: ir.Node) -> bool:
    """-softplus(-x): an integer sigmoid near 0 has no logarithm worth the name."""
    sigmoid = producer(log.inputs[0], "Sigmoid")
    if sigmoid is None:
        return False
    source = log.outputs[0]
    inner = [ir.node("Neg", [sigmoid.inputs[0]], name=f"{log.name}_negated")]
    inner.append(ir.node("Softplus", [inner[0].outputs[0]], name=f"{log.name}_softplus"))
    for node, suffix in zip(inner, ("negated", "softplus"), strict=True):
        node.metadata_props.update(log.metadata_props)
        node.outputs[0].name = f"{source.name}_{suffix}"
        node.outputs[0].type, node.outputs[0].shape = source.type, source.shape
        graph.insert_before(log, node)
    replace(graph, log, "Neg", [inner[1].outputs[0]])
    return True
