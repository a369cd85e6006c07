"""One graph for both kinds of targets: servers keep a batch of any size, edge devices get a batch of 1."""

from __future__ import annotations

from dataclasses import replace

from edgedeploy.graph.graph import Graph, graph_from_onnx


def fixed_batch(graph: Graph) -> Graph:
    """Return the graph with its dynamic batch set to 1; tensors keep their names, so one calibration serves both."""
    if all(spec.is_static for spec in graph.inputs):
        return graph
    fixed = graph_from_onnx(graph.model, dynamic_batch=False)
    return replace(fixed, batch_norms=graph.batch_norms, modules={**graph.modules, **fixed.modules})
