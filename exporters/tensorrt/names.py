"""Tensor names that TensorRT's tools can carry: no colon and no comma, which cache and trtexec take as separators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

from edgedeploy.exporters.tensorrt.cache import is_expressible


def renaming(model: onnx.ModelProto) -> dict[str, str]:
    """Map each name that the tools cannot carry to a new one that no tensor of the model has."""
    graph = model.graph
    names = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    names |= {name for node in graph.node for name in (*node.input, *node.output) if name}
    return _new_names(names)


def renamed(model: onnx.ModelProto, names: Mapping[str, str]) -> onnx.ModelProto:
    """Return a copy of the model with its tensors renamed."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    if not names:
        return result
    graph = result.graph
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for item in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        item.name = names.get(item.name, item.name)
    return result


def _new_names(names: Iterable[str]) -> dict[str, str]:
    taken = set(names)
    found: dict[str, str] = {}
    for name in sorted(name for name in taken if not is_expressible(name) or "," in name):
        base = "".join("_" if c in ":," or c.isspace() or not c.isprintable() else c for c in name)
        candidate, suffix = base, 1
        while candidate in taken:
            suffix += 1
            candidate = f"{base}_{suffix}"
        taken.add(candidate)
        found[name] = candidate
    return found
