"""`capture`: from a loaded model to the canonical graph, proved against the model it came from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgedeploy.errors import InputError, ToolFailedError
from edgedeploy.graph.agreement import compare
from edgedeploy.graph.canonical import canonical
from edgedeploy.graph.graph import OPSET, Graph, graph_from_onnx
from edgedeploy.model.quiet import quiet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch.export import ExportedProgram

    from edgedeploy.model.loaded import LoadedModel


def capture(
    model: LoadedModel,
    samples: Iterable[Mapping[str, NDArray[np.generic]]] = (),
    *,
    dynamic_batch: bool | None = None,
) -> Graph:
    """Capture a loaded model as one canonical FP32 graph and compare the two.

    Args:
        model: from `load_model`.
        samples: by input name, batch of 1, dtypes as the model's inputs; each is run through both (a few suffice).
            Without any, made-up values are compared.
        dynamic_batch: a batch of any size, or of exactly 1; by default what the load options say.

    Raises:
        InputError: where the model cannot be exported or does not fit one file.
        ToolFailedError: where the graph's outputs differ from the model's.
    """
    dynamic = model.options.dynamic_batch if dynamic_batch is None else dynamic_batch
    graph = _canonical(model, dynamic)
    agreement = compare(model, graph, list(samples))
    if not agreement.agrees:
        raise ToolFailedError(
            "The captured graph does not compute what the model computes.",
            found=str(agreement),
            remedy="This is usually a branch on the input's values, which export froze: remove it from forward(); "
            "or a sample whose attention mask hides every token: leave it out.",
        )
    return replace(graph, agreement=agreement)


def _canonical(model: LoadedModel, dynamic: bool) -> Graph:
    program = model.program(dynamic)
    if program is not None:
        with quiet():
            return canonical(_to_onnx(model, program))
    proto = model.onnx()
    assert proto is not None
    return graph_from_onnx(proto, model.inputs, dynamic_batch=dynamic)


def _to_onnx(model: LoadedModel, program: ExportedProgram) -> ir.Model:
    import torch

    try:
        exported = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, optimize=False, verbose=False, external_data=False
        )
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(
            "torch.onnx cannot translate this model.",
            found=f"{type(error).__name__}: {' / '.join(lines[:3])[:500]}",
            remedy="Replace the operator named above, or give the model as .onnx.",
        ) from error
    if exported is None:
        raise ToolFailedError("torch.onnx.export returned nothing.")
    intermediate: ir.Model = exported.model
    version = intermediate.opset_imports.get("")
    if version != OPSET:
        from onnxscript import version_converter

        version_converter.convert_version(intermediate, OPSET, fallback=True)
    for values, specs in ((intermediate.graph.inputs, model.inputs), (intermediate.graph.outputs, model.outputs)):
        if len(values) != len(specs):
            raise ToolFailedError(
                "torch.onnx gave another number of inputs or outputs than the model has.",
                found=f"{[value.name for value in values]} for {[spec.name for spec in specs]}",
            )
        _rename(intermediate.graph, list(values), [spec.name for spec in specs])
    _rename_batch(intermediate)
    return intermediate


def _rename_batch(model: ir.Model) -> None:
    """Call the one open size "batch"; torch numbers it anew at each export."""
    symbols = {
        str(axis.value) for value in model.graph.inputs for axis in value.shape or () if not isinstance(axis, int)
    }
    if not symbols:
        return
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, sorted(symbols))) + r")\b")
    for value in (*model.graph.inputs, *(output for node in model.graph.all_nodes() for output in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape(
                [axis if isinstance(axis, int) else pattern.sub("batch", str(axis.value)) for axis in value.shape]
            )


def _rename(graph: ir.Graph, values: list[ir.Value], names: list[str]) -> None:
    """Give inputs or outputs their promised names; a tensor that already bears one of them steps aside."""
    mine = set(map(id, values))
    wanted = set(names)
    others = [value for node in graph for value in node.outputs] + list(graph.inputs)
    for value in others:
        if value.name in wanted and id(value) not in mine:
            value.name = f"{value.name}_inner"
    for index, value in enumerate(values):
        value.name = f"edgedeploy_port_{index}"
    for value, name in zip(values, names, strict=True):
        value.name = name
