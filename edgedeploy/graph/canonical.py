"""The one form in which every backend gets a graph: opset 20, folded, named, with every shape known."""

from __future__ import annotations

import ast
import logging

import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from edgedeploy.errors import InputError
from edgedeploy.graph.batch_norm import fold_batch_norms
from edgedeploy.graph.graph import OPSET, Graph

#: protobuf's limit for one file, less room for everything that is not a weight.
MAX_WEIGHT_BYTES = 2**31 - 2**24
_SCOPES = "pkg.torch.onnx.name_scopes"


def canonical(model: ir.Model) -> Graph:
    """Bring an IR model (opset 20, fixed or declared-dynamic inputs) into canonical form, in place.

    Raises:
        InputError: where the weights exceed one file, or a tensor's type cannot be inferred.
    """
    from onnxscript import optimizer

    for name in ("onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    passes.InlinePass()(model)
    # Before the general optimizer, whose own batch-norm rules would lose the statistics.
    statistics = fold_batch_norms(model)
    optimizer.optimize(model)
    passes.RemoveUnusedNodesPass()(model)
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
    """Give every node a unique name; return the source module of each node whose module is known."""
    used: set[str] = set()
    modules: dict[str, str] = {}
    for index, node in enumerate(model.graph.all_nodes()):
        stem = (node.name or "").removeprefix("node_") or f"{node.op_type}_{index}"
        name, count = stem, 1
        while name in used:
            count += 1
            name = f"{stem}_{count}"
        used.add(name)
        node.name = name
        scopes = node.metadata_props.get(_SCOPES)
        if scopes:
            path = [str(scope) for scope in ast.literal_eval(scopes)]
            if len(path) > 1 and path[-2]:
                modules[name] = path[-2]
    return modules


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
