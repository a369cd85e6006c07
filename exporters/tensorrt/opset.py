"""Older opsets for devices whose TensorRT is older than the canonical graph.

Between opsets 13 and 20 the ops of a canonical graph changed their signatures, hardly their meaning: what is new
is expanded into its definition, moved inputs become attributes again, and the checker has the last word.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, inliner, numpy_helper

from edgedeploy.errors import InputError
from edgedeploy.graph.names import names_read

#: Definitions use other new ops in their turn (LayerNormalization uses CastLike).
_NESTING = 3


def to_opset(model: onnx.ModelProto, opset: int, device: str) -> onnx.ModelProto:
    """Convert to an older opset; `InputError` names what cannot be said in it."""
    for _ in range(_NESTING):
        newer = sorted({node.op_type for node in model.graph.node if not _exists(node.op_type, opset)})
        if not newer:
            break
        model = _typed(model)
        model = inliner.inline_selected_functions(model, [("", name) for name in newer], inline_schema_functions=True)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in result.graph.initializer}
    _fold_constant_nodes(result.graph, constants)
    for index, node in enumerate(result.graph.node):
        node.name = node.name or f"{node.op_type}_inlined_{index}"
        _adapt(node, opset, constants, device)
    used = names_read(result.graph)
    for tensor in [tensor for tensor in result.graph.initializer if tensor.name not in used]:
        result.graph.initializer.remove(tensor)
    del result.opset_import[:], result.graph.value_info[:], result.functions[:]
    result.opset_import.append(helper.make_opsetid("", opset))
    result.ir_version = min(result.ir_version, 8)
    try:
        onnx.checker.check_model(result, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError) as error:
        raise _inexpressible(opset, device, str(error).strip().splitlines()[0]) from None
    return onnx.shape_inference.infer_shapes(result)


def _adapt(node: onnx.NodeProto, opset: int, constants: dict[str, onnx.TensorProto], device: str) -> None:
    where = f"{node.op_type} {node.name!r}"
    if not _exists(node.op_type, opset):
        raise _inexpressible(opset, device, f"{where} is newer and has no definition in older ops")
    schema = onnx.defs.get_schema(node.op_type, opset)
    new = onnx.defs.get_schema(node.op_type)
    if node.op_type.startswith("Reduce") and len(node.input) > schema.max_input:
        axes = constants.get(node.input[1])
        if axes is None:
            raise _inexpressible(opset, device, f"{where} computes its axes")
        node.attribute.append(helper.make_attribute("axes", numpy_helper.to_array(axes).tolist()))
        del node.input[1:]
    if node.op_type == "Reshape" and _never_zero(constants.get(node.input[1])):
        del node.attribute[:]  # allowzero says what a 0 means
    for attribute in list(node.attribute):
        if attribute.name in schema.attributes:
            continue
        default = new.attributes[attribute.name].default_value if attribute.name in new.attributes else None
        if default is None or helper.get_attribute_value(attribute) != helper.get_attribute_value(default):
            raise _inexpressible(opset, device, f"{where} uses {attribute.name!r}, which is newer")
        node.attribute.remove(attribute)
    while len(node.input) > schema.max_input and not node.input[-1]:
        del node.input[-1]
    if len(node.input) > schema.max_input:
        raise _inexpressible(opset, device, f"{where} has {len(node.input)} inputs, {schema.max_input} are allowed")


def _typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Say every tensor's type: the inliner reads them, those of constants included."""
    result = onnx.shape_inference.infer_shapes(model)
    known = {value.name for value in result.graph.value_info}
    for tensor in result.graph.initializer:
        if tensor.name not in known:
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            result.graph.value_info.append(value)
    return result


def _never_zero(shape: onnx.TensorProto | None) -> bool:
    return shape is not None and bool(np.all(numpy_helper.to_array(shape)))


def _fold_constant_nodes(graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto]) -> None:
    """Turn the Constant nodes that inlining leaves into initializers."""
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        value = helper.get_attribute_value(node.attribute[0])
        kinds = {"value_floats": "float32", "value_float": "float32", "value_ints": "int64", "value_int": "int64"}
        if isinstance(value, onnx.TensorProto):
            tensor = numpy_helper.from_array(numpy_helper.to_array(value), node.output[0])
        else:
            tensor = numpy_helper.from_array(np.array(value, kinds[node.attribute[0].name]), node.output[0])
        graph.initializer.append(tensor)
        constants[node.output[0]] = tensor
        graph.node.remove(node)


def _exists(op_type: str, opset: int) -> bool:
    try:
        return not onnx.defs.get_schema(op_type, opset).deprecated
    except onnx.defs.SchemaError:
        return False


def _inexpressible(opset: int, device: str, found: str) -> InputError:
    return InputError(
        f"The model cannot be expressed in opset {opset}, the newest that TensorRT on {device} reads.",
        found=found,
        remedy="Replace the op in the model, or choose a device with a newer TensorRT.",
    )
