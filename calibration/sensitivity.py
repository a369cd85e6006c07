"""Which layer hurts: the output error that quantizing each layer alone causes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.calibration.quantizer import quantize
from edgedeploy.calibration.quantizer.layers import Layer, layers
from edgedeploy.calibration.simulate import Simulator, sqnr_db
from edgedeploy.errors import MissingToolError
from edgedeploy.plain_text import joined, printable
from edgedeploy.progress import NoProgress, Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.calibration.quantizer.table import RangeTable
    from edgedeploy.calibration.scheme import Scheme
    from edgedeploy.graph.graph import Graph


@dataclass(frozen=True)
class LayerSensitivity:
    """What quantizing one layer alone does to the model's outputs.

    Attributes:
        layer: the layer.
        module: the source module it comes from, "" where not known.
        macs_share: its share of the model's multiply-accumulates, 0 to 1.
        sqnr_db: of the model's outputs with only this layer in integers; infinite where nothing changes.
    """

    layer: Layer
    module: str
    macs_share: float
    sqnr_db: float


@dataclass(frozen=True)
class SensitivityRanking:
    """Every layer that computes in integers, the one that hurts most first.

    Attributes:
        scheme: name of the scheme under which it was measured.
        samples: number of samples it was measured on.
        layers: the layers, worst first.
    """

    scheme: str
    samples: int
    layers: tuple[LayerSensitivity, ...]

    def table(self, limit: int | None = None) -> str:
        """Text table of the first ``limit`` layers, one a line."""
        lines = [f"{'#':>3}  {'SQNR dB':>8}  {'MACs %':>6}  {'op':<18} layer"]
        for place, entry in enumerate(self.layers[:limit], 1):
            name = entry.layer.name + (f"  ({entry.module})" if entry.module else "")
            lines.append(
                f"{place:>3}  {entry.sqnr_db:>8.2f}  {100 * entry.macs_share:>6.2f}  {entry.layer.op_type:<18} {name}"
            )
        return joined(lines)

    def plot(self, path: Path, limit: int = 30) -> None:
        """Write a bar chart of the worst ``limit`` layers; the format follows the file name's ending.

        Raises:
            MissingToolError: where matplotlib is not installed.
        """
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingToolError("matplotlib", install="pip install 'edgedeploy[plot]'") from error
        shown = [entry for entry in self.layers[:limit] if math.isfinite(entry.sqnr_db)]
        figure = Figure(figsize=(8, 1 + 0.25 * len(shown)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        places = range(len(shown))
        axes.barh(places, [entry.sqnr_db for entry in shown])
        axes.set_yticks(places, [printable(entry.layer.name) for entry in shown], fontsize=7, parse_math=False)
        axes.invert_yaxis()
        axes.set_xlabel("output SQNR with only this layer quantized (dB); shorter hurts more")
        axes.set_title(f"{self.scheme}, {self.samples} samples")
        figure.savefig(path)


def rank_layers(
    graph: Graph,
    table: RangeTable,
    scheme: Scheme,
    samples: Sequence[Mapping[str, NDArray[Any]]],
    *,
    progress: Progress | None = None,
) -> SensitivityRanking:
    """Quantize each layer alone, simulate the model, and rank the layers by the error of its outputs.

    Costs one simulated pass over ``samples`` per layer: eight to sixteen samples are enough for a ranking.

    Args:
        graph: the float graph.
        table: its calibrated ranges.
        scheme: the backend's rules.
        samples: feeds by input name; few, and not those of the final accuracy claim.
        progress: told of each layer.
    """
    integer = layers(graph, scheme)
    # Ops that share one scale between input and output only move what others have rounded.
    found = [layer for layer in integer if layer.op_type not in scheme.shared_scale]
    macs = {fact.name: fact.macs for fact in graph.facts}
    total = max(sum(macs.values()), 1)
    reference = Simulator(graph, optimized=False).run(samples)
    everything = frozenset(name for layer in integer for name in layer.nodes)
    entries = []
    for layer in (progress or NoProgress()).track(found, what="layers ranked", total=len(found)):
        alone = quantize(graph, table, scheme, exclude=everything - set(layer.nodes))
        outputs = Simulator(alone, optimized=False).run(samples)
        share = sum(macs.get(name, 0) for name in layer.nodes) / total
        entries.append(LayerSensitivity(layer, graph.modules.get(layer.name, ""), share, sqnr_db(reference, outputs)))
    return SensitivityRanking(scheme.name, len(samples), tuple(sorted(entries, key=lambda entry: entry.sqnr_db)))
