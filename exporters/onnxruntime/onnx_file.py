"""Writes one ONNX file with the same bytes every time, whatever the tool that made the graph left in it."""

from __future__ import annotations

from pathlib import Path

import onnx

from edgedeploy.errors import InputError, ToolFailedError
from edgedeploy.graph.graph import Graph

#: protobuf cannot serialize more.
LARGEST_BYTES = 2**31 - 1


def write(model: onnx.ModelProto, source: Graph, path: Path) -> None:
    """Check that the boundary is the source graph's, strip what changes between runs, and write.

    Raises:
        InputError: the model is too large for one ONNX file.
        ToolFailedError: a pass changed the names or types of the inputs or outputs (a bug of that pass).
    """
    for ours, theirs, what in (
        (model.graph.input, source.model.graph.input, "inputs"),
        (model.graph.output, source.model.graph.output, "outputs"),
    ):
        if _boundary(ours) != _boundary(theirs):
            raise ToolFailedError(
                f"Quantization changed the {what} of the model.",
                found=f"{_boundary(ours)} instead of {_boundary(theirs)}",
            )
    model.producer_name, model.producer_version, model.doc_string = "edgedeploy", "", ""
    model.graph.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]  # ONNX Runtime infers shapes itself; stale ones make it refuse a quantized graph
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for tensor in model.graph.initializer:
        tensor.doc_string = ""
    if model.ByteSize() > LARGEST_BYTES:
        raise InputError(
            "The model is too large for one ONNX file.",
            found=f"{model.ByteSize() / 1e9:.1f} GB, at most 2.1 GB",
            remedy="Deploy a quantized candidate, or a smaller model.",
        )
    path.write_bytes(model.SerializeToString(deterministic=True))


def _boundary(values: list[onnx.ValueInfoProto]) -> list[tuple[str, int]]:
    return [(value.name, value.type.tensor_type.elem_type) for value in values]
