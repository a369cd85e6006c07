"""From the canonical graph and the shared calibration to the graph Hexagon gets and a table for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgedeploy.calibration.dataset import Dataset
from edgedeploy.calibration.quantizer.carried import carried
from edgedeploy.calibration.repair import Repaired, Repairs, repaired
from edgedeploy.calibration.session import Calibration
from edgedeploy.exporters.snpe.checks import check_interface, check_ops
from edgedeploy.exporters.snpe.precision import a8w8
from edgedeploy.exporters.snpe.rewrites.apply import for_hexagon
from edgedeploy.graph.graph import Graph

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from edgedeploy.calibration.readers.reader import Labels, Reader, Sample
    from edgedeploy.calibration.table import CalibrationTable
    from edgedeploy.progress import Progress


NO_REPAIRS = Repairs()


@dataclass(frozen=True)
class Prepared:
    """The graph to quantize.

    Attributes:
        graph: rewritten, still FP32.
        table: its calibration.
        rewrites: number of nodes rewritten, by kind.
        fed: the numpy dtype of inputs that are fed in another type than the captured graph's.
        carried: tensors that carry a state from step to step, which 8 bits would not keep.
        repairs: for the manifest, what equalization did.

    """

    graph: Graph
    table: CalibrationTable
    rewrites: Mapping[str, int]
    fed: Mapping[str, str]
    repairs: Mapping[str, Any] = field(default_factory=dict)
    carried: frozenset[str] = frozenset()


@dataclass(frozen=True)
class FedReader:
    """Another reader's samples, some inputs in another type."""

    inner: Reader
    fed: Mapping[str, str]

    @property
    def source(self) -> str:
        """What a message calls the data."""
        return self.inner.source

    @property
    def labels(self) -> Labels:
        """Labels by output name, in the order of the samples."""
        return self.inner.labels

    def __len__(self) -> int:
        return len(self.inner)

    def read(self, index: int) -> Sample:
        """Read one sample."""
        return as_fed(self.inner.read(index), self.fed)

    def describe(self, index: int) -> str:
        """Name one sample."""
        return self.inner.describe(index)


def as_fed(sample: Mapping[str, NDArray[np.generic]], fed: Mapping[str, str]) -> dict[str, NDArray[np.generic]]:
    """Give a captured graph's sample as the rewritten graph takes it; ``fed`` names the types that differ."""
    return {name: value.astype(fed[name]) if name in fed else value for name, value in sample.items()}


def prepare(
    graph: Graph,
    calibration: Calibration,
    progress: Progress,
    *,
    allow_cpu_nodes: int = 0,
    repairs: Repairs = NO_REPAIRS,
    states: Mapping[str, str] | None = None,
) -> Prepared:
    """Check, rewrite and calibrate.

    The shared table serves where the rewrites left the graph alone; otherwise the rewritten graph, which has other
    tensors, is calibrated on the same samples with the same options.

    Raises:
        InputError, UnsupportedOpError: what Hexagon cannot take.

    """
    check_interface(graph)
    rewritten = for_hexagon(graph.model)
    own = Graph(rewritten.model, graph.batch_norms, graph.modules)
    check_ops(own, allow_cpu_nodes=allow_cpu_nodes)
    data: Dataset = calibration.data
    if rewritten.fed:
        data = Dataset(FedReader(data.reader, rewritten.fed), data.indices)
    again = Calibration(own, data, calibration.options, progress=progress)
    if repairs.equalize:
        base = a8w8(own, carried(own.model, states or {}))
        found = repaired(repairs, own, again, base.scheme, progress, base.other)
    else:
        only_weights = set(rewritten.applied) <= {"faint channel"}
        found = Repaired(own, calibration if only_weights else again)
    # Not `table_for`, whose one method serves all tensors, and which rounds to the nearest where held-back outputs are
    # better for it. EfficientNet-Lite0, 300 photos (benchmarks/quantization_accuracy.py --snapdragon): rounding by
    # outputs takes A8W8 from 23.1 to 23.8 dB, and A16W8, where the weights set the error, from 22.3 to 26.2 dB.
    table = found.calibration.read_by(found.calibration.options.method)
    kept = carried(found.graph.model, states or {})
    return Prepared(found.graph, table, rewritten.applied, rewritten.fed, found.details, kept)
