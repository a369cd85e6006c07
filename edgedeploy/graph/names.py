"""The names of tensors that a graph reads, the branches of an If and the bodies of loops included."""

from __future__ import annotations

from collections.abc import Mapping

import onnx


def names_read(graph: onnx.GraphProto) -> set[str]:
    """The names that any node reads, at whatever depth, and those of the outputs.

    A branch reads tensors of the graphs around it without listing them anywhere else.
    """
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                names |= names_read(inner)
    return names


def rename_tensors(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors wherever they are made or read, in branches and loop bodies too; in place."""
    if not names:
        return
    for tensor in (*graph.initializer, *graph.value_info, *graph.input, *graph.output):
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                rename_tensors(inner, names)
