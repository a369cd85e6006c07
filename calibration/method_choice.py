"""Which threshold method and which rounding suit a model under a scheme: measured on its outputs, on held-back samples.

The best range for each tensor by itself need not give the best outputs: where rare large values carry the result, a
range that clips them looks good on the tensor and hurts at the end. So `auto`, the best method for each tensor, and
every single method have to prove themselves against plain min/max. Rounding weights by outputs has to prove itself too:
where activations set the error it can lose what it gains elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgedeploy.calibration.options import METHODS
from edgedeploy.calibration.quantizer.quantize import quantize
from edgedeploy.calibration.simulate import Simulator, judged_db

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.calibration.input_moments import InputMoments
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
        rounded_db: of the outputs under the chosen method with weights rounded by outputs, ``None`` where untried.
    """

    method: str
    sqnr_db: Mapping[str, float]
    samples: int
    rounded_db: float | None = None

    @property
    def rounds_by_outputs(self) -> bool:
        """True where rounding weights by outputs was better than rounding them to the nearest code."""
        return self.rounded_db is not None and self.rounded_db > self.sqnr_db[self.method]


def choose_method(
    graph: Graph,
    table: CalibrationTable,
    scheme: Scheme,
    samples: Sequence[Mapping[str, NDArray[Any]]],
    higher: frozenset[str] = frozenset(),
    *,
    methods: Sequence[str] = METHODS,
    moments: InputMoments | None = None,
) -> MethodChoice:
    """Quantize the model by every method, simulate it, and compare its outputs with the float ones.

    Args:
        graph: the float graph.
        table: its statistics without ``samples`` (`CalibrationTable.without_fold`).
        scheme: the backend's rules.
        samples: the held-back samples, by input name.
        higher: tensors that the backend stores in ``scheme.higher``.
        methods: those to compare.
        moments: what weights are rounded by, from other samples than the held-back ones; ``None`` leaves that untried.
    """
    reference = Simulator(graph, optimized=True).run(samples)

    def outputs_db(read: CalibrationTable) -> float:
        model = quantize(graph, read, scheme, higher=higher)
        return judged_db(reference, Simulator(model, optimized=False).run(samples))

    measured = {method: outputs_db(table.by_method(method)) for method in methods}
    chosen = clearly_best(measured) if len(measured) > 1 else methods[0]
    rounded = None if moments is None else outputs_db(replace(table.by_method(chosen), moments=moments))
    return MethodChoice(chosen, measured, len(samples), rounded)


def clearly_best(sqnr_db: Mapping[str, float]) -> str:
    """The best method where it leads min/max by more than `MARGIN_DB`, else min/max."""
    best = max(sqnr_db, key=lambda method: sqnr_db[method])
    return best if sqnr_db[best] > sqnr_db[SAFEST] + MARGIN_DB else SAFEST
