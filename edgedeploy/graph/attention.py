"""Attention as a quantizer or device compiler can read it: transposes instead of reshape detours, one scale, no NaN.

torch.onnx writes ``scaled_dot_product_attention`` with the square root of the scale on both operands, a reshape around
the transpose of the keys, infinities in the mask, and a guard that turns the NaN of a fully masked row into 0.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgedeploy.graph.ir_edit import add_initializer, constant, producer, redirect, replace, scalar, static_shape
from edgedeploy.graph.shape_values import shape_value

#: exp(-1e4) is 0 in every float format, and the value itself fits float16.
MASKED = -1e4
#: A row whose highest score is below this has no visible key.
_NO_KEY = -1e30
_MASK_PATH = frozenset({"Add", "Where", "Reshape", "Unsqueeze", "Expand", "Transpose", "Cast", "Slice", "Identity"})


def simplify_attention(model: ir.Model) -> bool:
    """Rewrites that change nothing but rounding; True where any applied."""
    changed = False
    for node in list(model.graph):
        if node.op_type == "Reshape":
            changed |= _direct_transpose(model.graph, node)
        elif node.op_type == "MatMul":
            changed |= _one_scale(model.graph, node)
    return changed


def finite_masks(model: ir.Model) -> bool:
    """Replace infinities in attention masks by -1e4 and drop the guards against NaN; True where any applied.

    Exact unless a whole row is masked, where torch gives 0 and this some mean over the row (so does ONNX Runtime's own
    softmax over infinities, which gives no NaN to guard against).
    """
    changed = False
    for node in list(model.graph):
        if node.op_type == "Softmax":
            changed |= _finite_constants(model.graph, node)
            changed |= _drop_guard(model.graph, node)
    return changed


def exact_guards(model: ir.Model) -> bool:
    """Let the guards against the NaN of a fully masked row ask the scores, which every runtime gives alike.

    ``Where(IsNaN(softmax), 0, softmax)`` is for a softmax that gives NaN there; ONNX Runtime's gives NaN or a mean, by
    the length of the row, and its ReduceMax of infinities the lowest float.
    """
    changed = False
    for node in list(model.graph):
        if node.op_type != "Softmax" or int(node.attributes.get_int("axis", -1) or -1) != -1:
            continue
        for test in list(node.outputs[0].consumers()):
            if test.op_type == "IsNaN":
                axes = add_initializer(model.graph, f"{test.name}_axes", np.asarray([-1], dtype=np.int64))
                highest = ir.node(
                    "ReduceMax", [node.inputs[0], axes], attributes={"keepdims": 1}, name=f"{test.name}_max"
                )
                highest.outputs[0].name = f"{test.outputs[0].name}_max"
                highest.outputs[0].type = node.outputs[0].type
                highest.metadata_props.update(test.metadata_props)
                model.graph.insert_before(test, highest)
                least = add_initializer(model.graph, f"{test.name}_least", np.asarray(_NO_KEY, dtype=np.float32))
                hidden = replace(model.graph, test, "Less", [highest.outputs[0], least])
                hidden.outputs[0].shape = None
                changed = True
    return changed


def _direct_transpose(graph: ir.Graph, last: ir.Node) -> bool:
    """Reshape (..., s, d) to (-1, s, d), swap, reshape to (..., d, s): one Transpose does it."""
    swap = producer(last.inputs[0], "Transpose")
    first = producer(swap.inputs[0], "Reshape") if swap is not None else None
    if swap is None or first is None or list(swap.attributes.get_ints("perm") or ()) != [0, 2, 1]:
        return False
    data, target, end = static_shape(first.inputs[0]), shape_value(first.inputs[1]), shape_value(last.inputs[1])
    if data is None or target is None or end is None or len(data) < 3:
        return False
    if target != [-1, *data[-2:]] or len(end) != len(data) or end[-2:] != [data[-1], data[-2]]:
        return False
    leading = all(size in (known, 0, -1) for size, known in zip(end[:-2], data[:-2], strict=True))
    if not leading:
        return False
    rank = len(data)
    replace(graph, last, "Transpose", [first.inputs[0]], perm=[*range(rank - 2), rank - 1, rank - 2])
    return True


def _one_scale(graph: ir.Graph, node: ir.Node) -> bool:
    """(a * c) @ (b * d) is (a * cd) @ b."""
    left, right = producer(node.inputs[0], "Mul"), producer(node.inputs[1], "Mul")
    if left is None or right is None or left is right:
        return False
    if any(len(side.outputs[0].uses()) != 1 or side.outputs[0].is_graph_output() for side in (left, right)):
        return False
    factors = [scalar(left.inputs[1]), scalar(right.inputs[1])]
    if factors[0] is None or factors[1] is None:
        return False
    product = np.asarray(factors[0] * factors[1], dtype=np.float32)
    left.replace_input_with(1, add_initializer(graph, f"{node.outputs[0].name}_scale", product))
    node.replace_input_with(1, right.inputs[0])
    graph.remove(right, safe=True)
    return True


def _finite_constants(graph: ir.Graph, softmax: ir.Node) -> bool:
    changed = False
    pending = [(softmax, 0)]
    seen: set[ir.Node] = set()
    while pending:
        node, index = pending.pop()
        value = node.inputs[index]
        array = constant(value)
        if array is not None:
            if node is not softmax and array.dtype == np.float32 and array.size and float(array.min()) < MASKED:
                name = f"{value.name}_finite" if value is not None else "mask_finite"
                node.replace_input_with(index, add_initializer(graph, name, np.maximum(array, np.float32(MASKED))))
                changed = True
            continue
        made = value.producer() if value is not None else None
        if made is None or made.op_type not in _MASK_PATH or made in seen:
            continue
        seen.add(made)
        operands = range(len(made.inputs)) if made.op_type == "Add" else (1, 2) if made.op_type == "Where" else (0,)
        pending.extend((made, operand) for operand in operands)
    return changed


def _drop_guard(graph: ir.Graph, softmax: ir.Node) -> bool:
    """Where(IsNaN(p), 0, p) is p once no row can be NaN."""
    probabilities = softmax.outputs[0]
    for node in list(probabilities.consumers()):
        if node.op_type != "Where" or node.inputs[2] is not probabilities:
            continue
        test = producer(node.inputs[0], "IsNaN")
        if test is None or test.inputs[0] is not probabilities or scalar(node.inputs[1]) != 0.0:
            continue
        name = probabilities.name
        redirect(node.outputs[0], probabilities)
        graph.remove(node, safe=True)
        graph.remove(test, safe=True) if not test.outputs[0].uses() else None
        return bool(name)
    return False
