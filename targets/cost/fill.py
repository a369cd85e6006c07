"""`fill_estimates`: the cost model speaks only where nothing was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgedeploy.errors import InputError
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.targets.cost.estimate import estimate

if TYPE_CHECKING:
    from edgedeploy.device_profiles.schema import DeviceProfile
    from edgedeploy.graph.graph import Graph
    from edgedeploy.precision import Precision


def fill_estimates(
    graph: Graph, profile: DeviceProfile, arithmetic: Precision | None, figures: Sequence[Figure]
) -> tuple[Figure, ...]:
    """Return ``figures`` with estimates for what nobody measured; a graph that cannot be estimated adds nothing.

    Neither does a profile without cost coefficients, nor an artefact that does not say how it computes (``None``).
    """
    from edgedeploy.graph.batch import fixed_batch

    if profile.cost is None or arithmetic is None:
        return tuple(figures)
    try:
        static = graph if all(spec.is_static for spec in graph.inputs) else fixed_batch(graph)
        estimated = estimate(static.facts, profile, arithmetic)
    except InputError:
        return tuple(figures)
    known = {figure.name for figure in figures if figure.evidence is not Evidence.NONE}
    # A figure that is absent with a reason keeps its place, so that reports stay in the runner's order.
    filled = {figure.name: figure for figure in figures}
    filled.update({figure.name: figure for figure in estimated if figure.name not in known})
    return tuple(filled.values())
