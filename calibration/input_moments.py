"""Second moments of what each layer's weights multiply: `quantizer/rounding.py` rounds weights by them.

One more run of the float model over at most `SAMPLES` samples, those whose hashes sort first, at `POSITIONS` output
positions of each layer. Values are cut to 1/512 of their tensor's range, much as a quantized layer sees them; sums over
a sample are then whole numbers below 2^24, exact in float32, and sums of those exact in float64: neither the order of
the data nor a library's order of summation changes a bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np

from edgedeploy.calibration.collector import fetch_session, run_sample
from edgedeploy.calibration.quantizer.unfold import Unfolding, unfolding

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from edgedeploy.calibration.dataset import Dataset
    from edgedeploy.calibration.table import CalibrationTable
    from edgedeploy.graph.graph import Graph

#: A layer of an image network so sees 2,048 rows, more than it has weights a channel in most.
SAMPLES, POSITIONS = 32, 64
_STEPS = 512


@dataclass(frozen=True)
class LayerMoments:
    """What one weight multiplies.

    Attributes:
        unfolding: how the layer's weight is cut into parts.
        second: means of x xᵀ, float64 (parts, row, row).
        mean: means of x, float64 (parts, row).
    """

    unfolding: Unfolding
    second: NDArray[np.float64]
    mean: NDArray[np.float64]


@dataclass(frozen=True)
class InputMoments:
    """Moments by the name of the weight; a weight that several layers share has those of all their inputs.

    ``codes`` remembers what the weights were rounded to, by weight and grid: schemes and attempts often share a grid.
    """

    layers: Mapping[str, LayerMoments]
    codes: dict[tuple[str, bytes, bool], NDArray[np.int64]] = field(default_factory=dict, repr=False, compare=False)


def collect_moments(graph: Graph, data: Dataset, table: CalibrationTable) -> InputMoments:
    """Run a few samples and sum up what every layer's weights multiply.

    Args:
        graph: the float graph.
        data: calibration samples.
        table: the graph's calibration table, for the range of each tensor.

    Raises:
        InputError: the graph cannot run a sample.
    """
    layers = _layers(graph.model, table)
    sums = {weight: _Sum(readers[0][1]) for weight, readers in layers.items()}
    readers = [(weight, *reader) for weight, found in layers.items() for reader in found]
    units = {tensor: _unit(tensor, table) for _, tensor, _ in readers}
    inputs = {spec.name for spec in graph.inputs}
    fetch = sorted(set(units) - inputs)
    session = fetch_session(graph.model, fetch) if fetch else None
    first = {value: position for position, value in reversed(list(enumerate(data.hashes)))}
    for number, value in enumerate(sorted(first)[:SAMPLES]):
        sample = data[first[value]]
        values = {} if session is None else run_sample(session, fetch, sample, data, first[value])
        values |= {name: cast("NDArray[np.float32]", sample[name]) for name in inputs & set(units)}
        for weight, tensor, layer in readers:
            sums[weight].add(layer.inputs(values[tensor], POSITIONS, number), units[tensor])
    return InputMoments({weight: found for weight, total in sums.items() if (found := total.build()) is not None})


class _Sum:
    def __init__(self, layer: Unfolding) -> None:
        self._layer = layer
        self._second = np.zeros((layer.parts, layer.row, layer.row))
        self._first = np.zeros((layer.parts, layer.row))
        self._count = 0

    def add(self, rows: NDArray[np.float32], unit: float) -> None:
        """Add rows of shape (rows, parts, row), `POSITIONS` at most, cut to multiples of ``unit``."""
        with np.errstate(over="ignore"):  # a value beyond the range is cut below, infinity too
            whole = np.ascontiguousarray(np.swapaxes(rows, 0, 1)) / np.float32(unit)
        np.rint(whole, out=whole)
        np.clip(whole, -_STEPS, _STEPS, out=whole)
        self._second += np.matmul(np.swapaxes(whole, 1, 2), whole) * np.float64(unit) ** 2
        self._first += whole.sum(axis=1) * np.float64(unit)
        self._count += len(rows)

    def build(self) -> LayerMoments | None:
        """The means; ``None`` where nothing was added."""
        if not self._count:
            return None
        return LayerMoments(self._layer, self._second / self._count, self._first / self._count)


def _layers(model: onnx.ModelProto, table: CalibrationTable) -> dict[str, list[tuple[str, Unfolding]]]:
    """By weight, the input tensors and unfoldings of the layers that multiply by it; those that unfold it alike."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    found: dict[str, list[tuple[str, Unfolding]]] = {}
    for node in model.graph.node:
        if len(node.input) < 2 or node.input[1] not in weights or node.input[0] in weights:
            continue
        layer = unfolding(node, weights[node.input[1]])
        if layer is None or node.input[0] not in table:
            continue
        others = found.setdefault(node.input[1], [])
        if not others or (others[0][1].transposed, others[0][1].parts) == (layer.transposed, layer.parts):
            others.append((node.input[0], layer))
    return found


def _unit(tensor: str, table: CalibrationTable) -> float:
    """A power of two, `_STEPS` of which hold the tensor: products of whole numbers with it are exact."""
    statistics = table.statistics(tensor)
    magnitude = max(-statistics.minimum, statistics.maximum, 2.0**-64)
    return float(2.0 ** (np.ceil(np.log2(magnitude)) - np.log2(_STEPS)))
