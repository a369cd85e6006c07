"""The one form in which every backend gets a graph: opset 20, folded, named, with every shape known."""

from __future__ import annotations

import ast

import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from edgedeploy.errors import InputError
from edgedeploy.graph.activations import name_activations
from edgedeploy.graph.attention import exact_guards, finite_masks, simplify_attention
from edgedeploy.graph.batch_norm import fold_batch_norms, lacks_rank
from edgedeploy.graph.graph import OPSET, Graph
from edgedeploy.graph.optimize import fold_constants, optimize
from edgedeploy.graph.ports import name_ports, separate_outputs
from edgedeploy.graph.shape_values import materialize_reshapes
from edgedeploy.graph.tidy import drop_zero_states, index_as_reshape, transpose_weights

#: protobuf's limit for one file, less room for everything that is not a weight.
MAX_WEIGHT_BYTES = 2**31 - 2**24
_SCOPES = "pkg.torch.onnx.name_scopes"


def canonical(model: ir.Model, *, exact_masks: bool = False) -> Graph:
    """Bring an IR model (opset 20, fixed or declared-dynamic inputs) into canonical form, in place.

    Args:
        model: its inputs and outputs keep their names; each output must be a tensor of its own (`separate_outputs`).
        exact_masks: leave infinities in attention masks.

    Raises:
        InputError: where the weights exceed one file, or a tensor's type cannot be inferred.
    """
    ports = [[str(value.name) for value in values] for values in (model.graph.inputs, model.graph.outputs)]
    passes.InlinePass()(model)
    transpose_weights(model)
    # Constants first: a convolution without bias comes with a computed zero. Norms before the general optimizer, whose
    # own rules for them would lose the statistics.
    fold_constants(model)
    if lacks_rank(model):  # torch's own shapes are better where they are known
        passes.ShapeInferencePass(strict_mode=False, data_prop=True)(model)
    statistics = fold_batch_norms(model)
    optimize(model)
    drop_zero_states(model)
    index_as_reshape(model)
    if exact_masks:
        exact_guards(model)
    else:
        finite_masks(model)
    name_activations(model)
    # A reshape whose target became constant lets more be inferred, and so more be simplified.
    if materialize_reshapes(model) | simplify_attention(model):
        optimize(model)
    passes.RemoveUnusedNodesPass()(model)
    separate_outputs(model.graph)
    name_ports(model.graph, *ports)
    passes.ShapeInferencePass(strict_mode=False, data_prop=True)(model)
    _check_size(model)
    modules = _name_nodes(model)
    _strip(model)
    proto = ir.to_proto(model)
    proto.producer_name, proto.producer_version = "edgedeploy", ""
    produced = {name for node in proto.graph.node for name in node.output}
    return Graph(
        proto,
        batch_norms={name: entry for name, entry in statistics.items() if name in produced},
        modules=modules,
    )


def _check_size(model: ir.Model) -> None:
    total = sum(
        value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None
    )
    if total > MAX_WEIGHT_BYTES:
        raise InputError(
            "The captured graph is larger than one ONNX file can be.",
            found=f"{total / 2**30:.2f} GiB of weights; the limit is 2 GiB",
            remedy="Deploy a smaller model: edge targets do not hold this one either.",
        )


def _name_nodes(model: ir.Model) -> dict[str, str]:
    """Name every node after its module and op ("encoder.0.fc1/MatMul"); return the module of each by node name.

    A node of a model without modules keeps the name it has.
    """
    used: set[str] = set()
    modules: dict[str, str] = {}
    for index, node in enumerate(model.graph.all_nodes()):
        module = _module(node)
        stem = f"{module}/{node.op_type}" if module else (node.name or f"{node.op_type}_{index}").removeprefix("node_")
        name, count = stem, 1
        while name in used:
            count += 1
            name = f"{stem}_{count}"
        used.add(name)
        node.name = name
        if module:
            modules[name] = module
    return modules


def _module(node: ir.Node) -> str:
    """The innermost module of the exporter's scopes ("['', 'encoder', 'encoder.fc1', 'linear']")."""
    scopes = [str(scope) for scope in ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))]
    path = scopes[-2] if len(scopes) > 1 else ""
    return "" if path.startswith("_empty_nn_module") else path


def _strip(model: ir.Model) -> None:
    """Drop doc strings and metadata: they carry stack traces, local paths and nothing a backend reads."""
    passes.ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.graph.name = "edgedeploy"
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
        value.doc_string = None
    for node in model.graph.all_nodes():
        for output in node.outputs:
            output.metadata_props.clear()
            output.doc_string = None
    model.opset_imports.setdefault("", OPSET)


def check(proto: onnx.ModelProto) -> None:
    """Hold the result against the ONNX specification."""
    onnx.checker.check_model(proto)
