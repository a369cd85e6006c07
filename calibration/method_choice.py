"""Which threshold method suits a whole model under one scheme: measured on its outputs, on samples held back.

The best range for each tensor by itself need not give the best outputs: where rare large values carry the result, a
range that clips them looks good on the tensor and hurts at the end. So `auto`, the best method for each tensor, has to
prove itself against each single method.
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

#: A method other than `auto` is taken only where its outputs are better by this much.
MARGIN_DB = 0.3


@dataclass(frozen=True)
class MethodChoice:
    """What was chosen for a model under a scheme.

    Attributes:
        method: "auto" or the single method that gives better outputs.
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
    single = max(METHODS[1:], key=lambda method: measured[method])
    chosen = single if measured[single] > measured[METHODS[0]] + MARGIN_DB else METHODS[0]
    return MethodChoice(chosen, measured, len(samples))
