"""Latency, energy and memory without the device: a fitted cost model with its error band.

The layers are the captured graph's ops after fusion (`layers`), their work depends on the kind of processor (`forms`,
`work`), their time on the device's coefficients (`latency`), which stand in the profiles' ``[cost]`` sections.
"""

from edgedeploy.targets.cost.estimate import Estimate, LayerCost, estimate, explain
from edgedeploy.targets.cost.fill import fill_estimates
from edgedeploy.targets.cost.precision import PRECISIONS, precision_of

__all__ = ["PRECISIONS", "Estimate", "LayerCost", "estimate", "explain", "fill_estimates", "precision_of"]
