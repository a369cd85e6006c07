"""What a computed shape operand will be, sizes that depend on the batch included, and reshapes made constant by it.

The exporter computes many a reshape's target at run time (Shape, Slice, Concat) although only the batch is open.
A constant target with one -1 says the same and is what quantizers and device compilers can take.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgedeploy.graph.ir_edit import add_initializer, constant, static_shape

Size = int | str
_MAX_DEPTH = 12


def shape_value(value: ir.Value | None, depth: int = 0) -> list[Size] | None:
    """The elements of a 1-D integer tensor as numbers or symbols ("batch"); ``None`` where not known."""
    if value is None or depth > _MAX_DEPTH:
        return None
    array = constant(value)
    if array is not None:
        return [int(item) for item in array.reshape(-1)] if array.dtype.kind in "iu" and array.size <= 64 else None
    node = value.producer()
    if node is None or node.domain:
        return None
    first = None if node.op_type == "Shape" else shape_value(node.inputs[0], depth + 1)
    if node.op_type == "Shape":
        sizes = static_shape(node.inputs[0])
        return None if sizes is None else sizes[slice(node.attributes.get_int("start"), node.attributes.get_int("end"))]
    if node.op_type == "Concat":
        parts = [shape_value(item, depth + 1) for item in node.inputs]
        return None if any(part is None for part in parts) else [size for part in parts for size in part or ()]
    if first is None:
        return None
    if node.op_type in ("Squeeze", "Unsqueeze", "Cast", "Identity", "Reshape"):
        return first
    if node.op_type == "Mul":
        factors = [first, shape_value(node.inputs[1], depth + 1)]
        single = [factor[0] for factor in factors if factor is not None and len(factor) == 1]
        numbers = [size for size in single if isinstance(size, int)]
        return [numbers[0] * numbers[1]] if len(numbers) == 2 else None
    others = [shape_value(item, depth + 1) for item in node.inputs[1:]]
    if node.op_type == "Gather" and others[0] is not None:
        return [first[int(index)] for index in others[0]]
    if node.op_type == "Slice" and all(other is not None and len(other) == 1 for other in others):
        bounds = [int((other or [0])[0]) for other in others]
        return first[slice(bounds[0], bounds[1], bounds[3] if len(bounds) > 3 else 1)]
    return None


def materialize_reshapes(model: ir.Model) -> bool:
    """Give every Reshape whose target can be told a constant one; True where any changed."""
    graph = model.graph
    changed = False
    for node in graph:
        if node.op_type != "Reshape" or constant(node.inputs[1]) is not None:
            continue
        target = shape_value(node.inputs[1])
        if target is None:
            target = static_shape(node.outputs[0])
        data = static_shape(node.inputs[0])
        sizes = _constant_target(target, data) if target is not None else None
        if sizes is None:
            continue
        name = f"{node.outputs[0].name}_shape"
        node.replace_input_with(1, add_initializer(graph, name, np.asarray(sizes, dtype=np.int64)))
        node.attributes.pop("allowzero", None)
        changed = True
    return changed


def _constant_target(target: list[Size], data: list[Size] | None) -> list[int] | None:
    """Numbers stay; one open size becomes -1, and others become 0 ("as in the input") where they stand unmoved."""
    if 0 in target:
        return None
    sizes: list[int] = []
    inferred = -1 in target
    for axis, size in enumerate(target):
        if isinstance(size, int):
            sizes.append(size)
        elif data is not None and axis < len(data) and data[axis] == size:
            sizes.append(0)
        elif not inferred:
            inferred = True
            sizes.append(-1)
        else:
            return None
    return sizes
