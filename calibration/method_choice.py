"""Which threshold method suits a whole model under one scheme: measured on its outputs, on samples held back.

The best range for each tensor by itself need not give the best outputs: where rare large values carry the result, a
range that clips them looks good on the tensor and hurts at the end. So `auto`, the best method for each tensor, and
every single method have to prove themselves against plain min/max.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgedeploy.calibration.options import METHODS
from edgedeploy.calibration.quantizer.quantize import quantize
from edgedeploy.calibration.simulate import Simulator, sqnr_db

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.calibration.scheme import Scheme
    from edgedeploy.calibration.table import CalibrationTable
    from edgedeploy.graph.graph import Graph

#: What is taken unless another is clearly better: values that no sample showed are clipped least by min/max.
SAFEST = "minmax"
#: How much better that must be. Held-back samples seldom hold the extremes of new data, so they flatter clipping:
#: on a trained autoencoder `auto` led by 0.3 dB on 13 of them and lost 4 dB on 300 new ones.
MARGIN_DB = 1.0


@dataclass(frozen=True)
class MethodChoice:
    """What was chosen for a model under a scheme.

    Attributes:
        method: "minmax", or the one whose outputs are clearly better ("auto" is the best method for each tensor).
        sqnr_db: of the model's outputs under every method, on the held-back samples, in dB.
        samples: how many those were.
    """

    method: str
    sqnr_db: Mapping[str, float]
    samples: int


def choose_method(
    graph: Graph,
    table: CalibrationTable,
    scheme: Scheme,
    samples: Sequence[Mapping[str, NDArray[Any]]],
    higher: frozenset[str] = frozenset(),
) -> MethodChoice:
    """Quantize the model by every method, simulate it, and compare its outputs with the float ones.

    Args:
        graph: the float graph.
        table: its statistics without ``samples`` (`CalibrationTable.without_fold`).
        scheme: the backend's rules.
        samples: the held-back samples, by input name.
        higher: tensors that the backend stores in ``scheme.higher``.
    """
    reference = Simulator(graph, optimized=True).run(samples)
    measured = {}
    for method in METHODS:
        model = quantize(graph, table.by_method(method), scheme, higher=higher)
        measured[method] = sqnr_db(reference, Simulator(model, optimized=False).run(samples))
    return MethodChoice(clearly_best(measured), measured, len(samples))


def clearly_best(sqnr_db: Mapping[str, float]) -> str:
    """The best method where it leads min/max by more than `MARGIN_DB`, else min/max."""
    best = max(sqnr_db, key=lambda method: sqnr_db[method])
    return best if sqnr_db[best] > sqnr_db[SAFEST] + MARGIN_DB else SAFEST
