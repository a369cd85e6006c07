"""The latency model: ``fixed + io + Σ max(compute + vector, memory) + calls · op`` over the executed layers.

A roofline per layer (Williams et al. 2009) with a fixed cost per inference and per layer; every coefficient has a
physical reading, and all of them are fitted in log space to published latencies (benchmarks/fit_cost_model.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.device_profiles.schema import LatencyCoefficients
    from edgedeploy.targets.cost.work import Work


@dataclass(frozen=True)
class LayerTimes:
    """Microseconds by layer, and what each waits for.

    Attributes:
        total_us: of each layer, its fixed cost included.
        calls_us: its fixed cost, part of ``total_us``.
        waiting_us: what it waits for memory beyond computing, part of ``total_us``.
        memory_bound: True where moving its bytes takes longer than computing.
        overhead_us: of the whole inference: start, and conversion of inputs and outputs.
    """

    total_us: NDArray[np.float64]
    calls_us: NDArray[np.float64]
    waiting_us: NDArray[np.float64]
    memory_bound: NDArray[np.bool_]
    overhead_us: float

    def scaled(self, factor: float) -> LayerTimes:
        """Every time multiplied by ``factor``."""
        return LayerTimes(
            self.total_us * factor, self.calls_us * factor, self.waiting_us * factor, self.memory_bound,
            self.overhead_us * factor,
        )  # fmt: skip

    @property
    def latency_ms(self) -> float:
        """One inference."""
        return (self.overhead_us + float(self.total_us.sum())) / 1e3


def layer_times(work: Work, rates: LatencyCoefficients) -> LayerTimes:
    """Apply a device's rates to the work of a graph."""
    ratio = np.array([1.0, rates.attention_ratio, rates.depthwise_ratio])[work.unit]
    compute = work.macs * ratio / (rates.compute_gmacs_s * 1e3)
    vector = work.vector / (rates.vector_gb_s * 1e3)
    memory = work.memory / (rates.memory_gb_s * 1e3)
    busy = compute + vector
    return LayerTimes(
        total_us=np.maximum(busy, memory) + rates.op_us * work.calls,
        calls_us=rates.op_us * work.calls,
        waiting_us=np.maximum(memory - busy, 0),
        # A layer without multiply-accumulates does little but move its elements.
        memory_bound=(memory >= busy) | (work.macs == 0),
        overhead_us=rates.fixed_us + rates.io_us_per_kb * work.io_kb,
    )
