"""Mixed precision: the fewest layers left float that bring a quantized model back inside its accuracy gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedeploy.calibration.mixed_precision import Goal, mix_precision
from edgedeploy.calibration.sensitivity import rank_layers
from edgedeploy.device_profiles.schema import Quality
from edgedeploy.judge import FIDELITY

if TYPE_CHECKING:
    from edgedeploy.calibration.repair import Repaired
    from edgedeploy.calibration.scheme import Scheme
    from edgedeploy.interfaces import ExportContext, Json

#: Calibration samples that rank the layers, and those that the goal is measured on.
RANKED_ON = 8
MEASURED_ON = 128
#: The goal where the profile has no gate on outputs.
FALLBACK_SQNR_DB = 20.0


def keep_float(
    context: ExportContext, scheme: Scheme, subject: Repaired, *, bias_correction: bool
) -> tuple[frozenset[str], Json]:
    """Rank the layers by what quantizing each alone does to the outputs, and leave the worst float until it suffices.

    Measured on calibration samples: the evaluation samples stay unseen until the candidate is judged.

    Returns:
        The nodes to leave float, and for the manifest the layers, with the output SQNR that each alone costs.
    """
    graph, data, table = subject.graph, subject.calibration.data, subject.calibration.table_for(scheme)
    ranking = rank_layers(graph, table, scheme, list(data.take(RANKED_ON)), progress=context.progress)
    samples, goal = list(data.take(MEASURED_ON)), _goal(context)
    mixture = mix_precision(graph, table, scheme, ranking, samples, goal, bias_correction=bias_correction)
    alone = {entry.layer.name: entry.sqnr_db for entry in ranking.layers}
    return mixture.exclude, {
        "layers": [{"layer": layer.name, "sqnr_db_alone": round(alone[layer.name], 2)} for layer in mixture.kept],
        "integer_macs_share": round(mixture.integer_macs_share, 4),
    }


def _goal(context: ExportContext) -> Goal:
    """The gates of the profile, on the outputs that the judge takes for class scores."""
    gates = context.profile.quality
    if all(getattr(gates, gate) is None for gate in FIDELITY):
        gates = Quality(min_sqnr_db=FALLBACK_SQNR_DB)
    return Goal(gates, context.class_outputs)
