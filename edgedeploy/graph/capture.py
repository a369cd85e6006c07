"""`capture`: from a loaded model to the canonical graph, proved against the model it came from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from edgedeploy.errors import InputError, ToolFailedError
from edgedeploy.graph.agreement import Agreement, compare
from edgedeploy.graph.canonical import canonical
from edgedeploy.graph.graph import OPSET, Graph, graph_from_onnx
from edgedeploy.graph.ports import name_ports, separate_outputs
from edgedeploy.graph.program_edits import translatable
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
    largest: Mapping[str, int] | None = None,
) -> Graph:
    """Capture a loaded model as one canonical FP32 graph and compare the two.

    Args:
        model: from `load_model`.
        samples: by input name, batch of 1, dtypes as the model's inputs; each is run through both (a few suffice).
            Without any, made-up values are compared.
        dynamic_batch: a batch of any size, or of exactly 1; by default what the load options say.
        largest: by integer input, the largest value in the user's data.

    Raises:
        InputError: where the model cannot be exported, does not fit one file, or has outputs of no fixed size.
        ToolFailedError: where the graph's outputs differ from the model's.
    """
    dynamic = model.options.dynamic_batch if dynamic_batch is None else dynamic_batch
    given = list(samples)
    graph = _canonical(model, dynamic)
    agreement = compare(model, graph, given, largest)
    if not agreement.agrees:
        graph, agreement = _with_exact_masks(model, dynamic, graph, agreement, given, largest)
    if not agreement.agrees:
        raise ToolFailedError(
            "The captured graph does not compute what the model computes.",
            found=str(agreement),
            remedy="This is usually a branch on the input's values, which export froze: remove it from forward().",
        )
    return replace(graph, agreement=agreement)


def _with_exact_masks(
    model: LoadedModel,
    dynamic: bool,
    graph: Graph,
    agreement: Agreement,
    given: Sequence[Mapping[str, NDArray[np.generic]]],
    largest: Mapping[str, int] | None,
) -> tuple[Graph, Agreement]:
    """Attention whose masks keep their infinities, where that is what separates graph and model.

    The plain form gives another value than torch only to a row of attention without any visible key. The user's own
    samples may have such rows (padding to the left of a causal mask): then the exact form is the graph. Where only a
    probe has them (a mask of zeros), the plain form stays, and that probe says nothing of it.
    """
    exact = _canonical(model, dynamic, exact_masks=True)
    if exact.sha256 == graph.sha256:
        return graph, agreement
    exactly = compare(model, exact, given, largest)
    silent: set[str] = set()
    while exactly.agrees and agreement.differing_probe:
        silent.add(agreement.differing_probe)
        agreement = compare(model, graph, given, largest, without=silent)
    return (graph, agreement) if agreement.agrees or not exactly.agrees else (exact, exactly)


def _canonical(model: LoadedModel, dynamic: bool, exact_masks: bool = False) -> Graph:
    with quiet():
        program = model.program(dynamic)
        if program is not None:
            return canonical(_to_onnx(model, program), exact_masks=exact_masks)
        proto = model.onnx()
        assert proto is not None
        return graph_from_onnx(proto, model.inputs, dynamic_batch=dynamic, exact_masks=exact_masks)


def _to_onnx(model: LoadedModel, program: ExportedProgram) -> ir.Model:
    try:
        exported = _export(program)
    except Exception as error:
        edited = translatable(program)
        try:
            if edited is None:
                raise
            exported = _export(edited)
        except Exception:
            raise InputError(
                "torch.onnx cannot translate this model.",
                found=_cause(error),
                remedy="Replace what it names in the model, or give the model as .onnx.",
            ) from error
    if exported is None:
        raise ToolFailedError("torch.onnx.export returned nothing.")
    intermediate: ir.Model = exported.model
    version = intermediate.opset_imports.get("")
    if version != OPSET:
        from onnxscript import version_converter

        version_converter.convert_version(intermediate, OPSET, fallback=True)
    graph = intermediate.graph
    for values, specs in ((graph.inputs, model.inputs), (graph.outputs, model.outputs)):
        if len(values) != len(specs):
            raise ToolFailedError(
                "torch.onnx gave another number of inputs or outputs than the model has.",
                found=f"{[value.name for value in values]} for {[spec.name for spec in specs]}",
            )
    separate_outputs(graph)
    name_ports(graph, [spec.name for spec in model.inputs], [spec.name for spec in model.outputs])
    _rename_batch(intermediate)
    return intermediate


def _export(program: ExportedProgram) -> Any:
    import torch

    return torch.onnx.export(
        program, dynamo=True, opset_version=OPSET, optimize=False, verbose=False, external_data=False
    )


def _cause(error: BaseException) -> str:
    """What was raised first: torch.onnx wraps it in advice on how to report a bug."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {' / '.join(lines[:3])[:500]}"


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
