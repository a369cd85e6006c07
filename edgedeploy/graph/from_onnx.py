"""A user's float ONNX model of any opset, brought into canonical form."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import onnx
import onnx_ir as ir

from edgedeploy.errors import InputError
from edgedeploy.graph.canonical import canonical
from edgedeploy.graph.graph import OPSET, Graph
from edgedeploy.graph.ports import name_ports, separate_outputs
from edgedeploy.model.naming import distinct_outputs
from edgedeploy.tensors import Dimension, TensorSpec

_QUANTIZED = frozenset(
    {
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
        "ConvInteger", "MatMulInteger", "MatMulNBits", "QAttention", "QGemm", "QLinearAdd",
        "DynamicQuantizeMatMul", "MatMulIntegerToFloat",
    }
)  # fmt: skip
_OTHER_FLOATS = {
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.COMPLEX64: "complex64",
    onnx.TensorProto.COMPLEX128: "complex128",
}
_ONNX_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")


def normalise(model: onnx.ModelProto, inputs: Sequence[TensorSpec], dynamic_batch: bool, exact_masks: bool) -> Graph:
    """See `edgedeploy.graph.graph.graph_from_onnx`."""
    _refuse_quantized(model)
    _refuse_other_floats(model)
    _refuse_foreign(model)
    intermediate = ir.from_proto(model)
    _drop_weight_inputs(intermediate)
    _to_opset(intermediate)
    graph = intermediate.graph
    names = [[str(value.name) for value in values] for values in (graph.inputs, graph.outputs)]
    separate_outputs(graph)
    name_ports(graph, names[0], distinct_outputs(*names))
    _fix_inputs(intermediate, {spec.name: spec for spec in inputs}, dynamic_batch)
    return canonical(intermediate, exact_masks=exact_masks)


def _refuse_quantized(model: onnx.ModelProto) -> None:
    quantized = sorted({node.op_type for graph in _graphs(model) for node in graph.node if node.op_type in _QUANTIZED})
    if quantized:
        raise InputError(
            "The ONNX model is quantized already.",
            found=", ".join(quantized),
            remedy="Give the float32 model it was made from: each target quantizes by its own rules.",
        )


def _refuse_other_floats(model: onnx.ModelProto) -> None:
    """float32 is the one float there is: weights and ports of half precision or double are refused wherever they stand.

    A single double is no weight: exporters write the numbers of a program so, and cast them where they are used.
    """
    kinds: dict[str, list[str]] = {}

    def see(element_type: int, name: str, elements: int = 2) -> None:
        if element_type in _OTHER_FLOATS and (elements > 1 or element_type != onnx.TensorProto.DOUBLE):
            kinds.setdefault(_OTHER_FLOATS[element_type], []).append(name)

    for graph in _graphs(model):
        tensors = [(tensor.name, tensor) for tensor in getattr(graph, "initializer", ())]
        tensors += [(node.output[0], a.t) for node in graph.node if node.op_type == "Constant" for a in node.attribute]
        for name, tensor in tensors:
            see(tensor.data_type, name, math.prod(tensor.dims))
    for value in (*model.graph.input, *model.graph.output):
        see(value.type.tensor_type.elem_type, value.name)
    if kinds:
        half = kinds.keys() <= {"float16", "bfloat16"}
        raise InputError(
            "The ONNX model is in half precision." if half else "The ONNX model has floats that are not float32.",
            found="; ".join(f"{len(names)} {kind} tensor(s): {', '.join(names[:3])}" for kind, names in kinds.items()),
            remedy="Give the float32 model: each target lowers the precision by its own rules.",
        )


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """The graph, the bodies of the model's functions, and every branch and loop body inside them."""
    pending: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while pending:
        graph = pending.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                pending += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]


def _refuse_foreign(model: onnx.ModelProto) -> None:
    local = {(function.domain, function.name) for function in model.functions}
    foreign = sorted(
        {
            f"{node.domain}.{node.op_type}"
            for graph in _graphs(model)
            for node in graph.node
            if node.domain not in _ONNX_DOMAINS and (node.domain, node.op_type) not in local
        }
    )
    if foreign:
        raise InputError(
            "The ONNX model has operators outside the ONNX standard.",
            found=", ".join(foreign),
            remedy="Export it without runtime-specific optimizations or custom operators.",
        )


def _drop_weight_inputs(model: ir.Model) -> None:
    """ONNX before IR version 4 lists every weight as an input too."""
    inputs = model.graph.inputs
    for value in [value for value in inputs if value.name in model.graph.initializers]:
        inputs.remove(value)
    model.ir_version = max(model.ir_version, 8)


def _to_opset(model: ir.Model) -> None:
    version = model.opset_imports.get("", 1)
    if version == OPSET:
        return
    from onnxscript import version_converter

    problem = ""
    try:
        version_converter.convert_version(model, OPSET, fallback=True)
    except Exception as error:
        problem = f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"
    if problem or model.opset_imports.get("") != OPSET:
        raise InputError(
            f"The ONNX model cannot be converted from opset {version} to {OPSET}.",
            found=problem or f"it stayed at opset {model.opset_imports.get('')}",
            remedy=f"Export it with opset {OPSET}, or give the PyTorch model.",
        )


def _fix_inputs(model: ir.Model, specs: dict[str, TensorSpec], dynamic_batch: bool) -> None:
    changed = False
    for value in model.graph.inputs:
        if value.shape is None:
            if value.name not in specs:
                raise InputError(
                    f"Input {value.name!r} of the ONNX model has no shape.", remedy="Give it with --input."
                )
            value.shape = ir.Shape(specs[value.name].shape)
            continue
        spec = specs.get(value.name or "")
        sizes: list[int | ir.SymbolicDim | None] = []
        for axis, size in enumerate(value.shape):
            if isinstance(size, int) and size > 0:
                sizes.append(size)
                continue
            changed = True  # -1 and 0 stand for "any size" in old exports
            if axis == 0 and dynamic_batch:
                sizes.append(ir.SymbolicDim("batch"))
            elif spec is not None:
                sizes.append(_size(spec.shape[axis]))
            elif axis == 0:
                sizes.append(1)
            else:
                raise InputError(
                    f"Input {value.name!r} of the ONNX model has axes of no fixed size.",
                    found=str(value.shape),
                    remedy="State them with --input.",
                )
        value.shape = ir.Shape(sizes)
    if changed:
        # What was inferred under other sizes no longer holds.
        for node in model.graph.all_nodes():
            for output in node.outputs:
                output.shape = None


def _size(size: Dimension) -> int:
    """A declared size; a batch of any size is 1 where the batch is fixed."""
    return size if isinstance(size, int) else 1
