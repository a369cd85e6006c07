"""What the shared calibration table says for this backend: the cache's scales."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgedeploy.calibration.schemes import TENSORRT
from edgedeploy.exporters.tensorrt.cache import scale_of

if TYPE_CHECKING:
    from edgedeploy.calibration.table import CalibrationTable
    from edgedeploy.graph.graph import Graph

METHOD = "entropy"


def cache_scales(graph: Graph, table: CalibrationTable, names: Mapping[str, str]) -> dict[str, float]:
    """Scale of every float activation by the name it has in the exported model, in graph order.

    A tensor between a layer and the activation fused to it is not observed: it takes the activation's range, as
    TensorRT fuses the two and never stores it.
    """
    readers = {name: node.output[0] for node in graph.model.graph.node for name in node.input}
    tensors = [value.name for value in graph.model.graph.input]
    tensors += [name for node in graph.model.graph.node for name in node.output]
    scales = {}
    for name in tensors:
        known = name if name in table else readers.get(name, "")
        if known in table:
            found = table.range(known, TENSORRT.activation, METHOD)
            scales[names.get(name, name)] = scale_of(found.low, found.high)
    return scales
