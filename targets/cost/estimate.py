"""`estimate`: what a graph will cost on a device nobody has at hand, each figure with its 90 % band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING

from edgedeploy.errors import InputError
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.precision import Precision
from edgedeploy.targets.cost.energy import energy_figures
from edgedeploy.targets.cost.forms import FORMS
from edgedeploy.targets.cost.latency import layer_times
from edgedeploy.targets.cost.layers import Kind, layers
from edgedeploy.targets.cost.memory import peak_activation_elements
from edgedeploy.targets.cost.peers import correction, groups, load_peers, position
from edgedeploy.targets.cost.work import boundary, work

if TYPE_CHECKING:
    from edgedeploy.device_profiles.schema import Cost, DeviceProfile
    from edgedeploy.graph.facts import OpFacts

#: A real allocator is granted this much over the live tensors: fragmentation and scratch buffers.
_ARENA_SLACK = 1.3


@dataclass(frozen=True)
class LayerCost:
    """Where the time goes: one layer.

    Attributes:
        ops: the op types it fuses.
        kind: what it is ("convolution", "depthwise", "data movement" ...).
        share: of the whole inference, overhead included.
        bound: "compute" or "memory".
    """

    name: str
    ops: tuple[str, ...]
    kind: str
    latency_us: float
    share: float
    bound: str
    macs: int
    bytes_moved: float


@dataclass(frozen=True)
class Estimate:
    """What the cost model says of one graph on one device.

    Attributes:
        target, precision: the device and the arithmetic estimated ("int8").
        status: "fitted" or "interpolated", or why there is no latency.
        figures: latency_ms, throughput_per_s, energy_mj, power_mw where they are fitted; ram_kb and traffic_mb always.
        layers: in execution order; empty without latency coefficients.
        overhead_us: fixed cost and conversion of inputs and outputs.
        unknown_ops: op types without a class, counted as memory-bound.
    """

    target: str
    precision: str
    status: str
    figures: tuple[Figure, ...]
    layers: tuple[LayerCost, ...]
    overhead_us: float
    unknown_ops: tuple[str, ...]

    def figure(self, name: str) -> Figure | None:
        """The figure of that name."""
        return next((figure for figure in self.figures if figure.name == name), None)

    def top(self, count: int = 10) -> tuple[LayerCost, ...]:
        """The slowest layers, slowest first."""
        return tuple(sorted(self.layers, key=lambda layer: -layer.latency_us)[:count])


def estimate(
    facts: Sequence[OpFacts], profile: DeviceProfile, arithmetic: Precision, *, rate_per_s: float | None = None
) -> tuple[Figure, ...]:
    """Estimate latency, energy, power, memory and traffic of one inference.

    Args:
        facts: of a graph whose shapes are static but for a batch axis, which counts as 1.
        profile: the device; without coefficients for this precision it gets no latency, never an invented one.
        arithmetic: the artefact's; `edgedeploy.targets.cost.precision_of` gives that of a name.
        rate_per_s: inferences a second for ``power_mw``; back to back where ``None``.

    Raises:
        InputError: a dimension other than the batch is not known.
    """
    return explain(facts, profile, arithmetic, rate_per_s=rate_per_s).figures


def explain(
    facts: Sequence[OpFacts], profile: DeviceProfile, arithmetic: Precision, *, rate_per_s: float | None = None
) -> Estimate:
    """Like `estimate`, with the time of every layer."""
    _require_static(facts)
    executed = layers(facts)
    unknown = tuple(sorted({op for layer in executed if layer.kind is Kind.OTHER for op in layer.ops[:1]}))
    moved = [(layer.inputs + layer.outputs) * arithmetic.activation_bytes + layer.weights * arithmetic.weight_bytes
             for layer in executed]  # fmt: skip
    figures = [*_memory(facts, arithmetic), _banded("traffic_mb", sum(moved) / 1e6, 1.25, "every layer's bytes once")]
    cost = profile.cost
    rates = cost.latency.get(arithmetic.name) if cost else None  # type: ignore[call-overload]
    if cost is None or rates is None:
        why = _no_latency(profile, arithmetic)
        return Estimate(profile.name, arithmetic.name, why, tuple(figures), (), 0.0, unknown)
    form = FORMS[cost.form]
    times = layer_times(work(facts, executed, form, arithmetic), rates)
    peers = load_peers(cost.form, arithmetic.name)
    if peers is not None:
        times = times.scaled(exp(correction(position(groups(executed), times), peers)))
    latency = _banded("latency_ms", times.latency_ms, rates.band90, _how(cost, unknown))
    throughput = Figure(
        "throughput_per_s", 1e3 / times.latency_ms, Evidence.ESTIMATE, "one inference after the other",
        1e3 / (times.latency_ms * rates.band90), 1e3 * rates.band90 / times.latency_ms,
    )  # fmt: skip
    macs = sum(layer.macs for layer in executed)
    figures = [latency, throughput, *energy_figures(cost.energy, latency, macs, sum(moved), rate_per_s), *figures]
    total = times.latency_ms * 1e3
    costs = tuple(
        LayerCost(
            name=layer.name,
            ops=layer.ops,
            kind=str(layer.kind),
            latency_us=float(time),
            share=float(time) / total,
            bound="memory" if memory_bound else "compute",
            macs=layer.macs,
            bytes_moved=count,
        )
        for layer, time, memory_bound, count in zip(executed, times.total_us, times.memory_bound, moved, strict=True)
    )
    return Estimate(
        profile.name, arithmetic.name, cost.status, tuple(figures), costs, times.overhead_us, unknown
    )  # fmt: skip


def _memory(facts: Sequence[OpFacts], arithmetic: Precision) -> list[Figure]:
    peak = peak_activation_elements(facts) * arithmetic.activation_bytes / 1024
    how = "live tensors in the graph's order; an allocator needs as much or up to 30 % more"
    return [Figure("ram_kb", peak, Evidence.ESTIMATE, how, peak, peak * _ARENA_SLACK)]


def _banded(name: str, value: float, factor: float, how: str) -> Figure:
    return Figure(name, value, Evidence.ESTIMATE, how, value / factor, value * factor)


def _how(cost: Cost, unknown: tuple[str, ...]) -> str:
    text = f"cost model, {cost.status} on {cost.fitted_on}"
    return text + (f"; counted as memory-bound: {', '.join(unknown)}" if unknown else "")


def _no_latency(profile: DeviceProfile, arithmetic: Precision) -> str:
    if profile.cost is not None:
        return f"{profile.name} has no coefficients for {arithmetic.name}, only for {', '.join(profile.cost.latency)}"
    if profile.hardware.accelerator.startswith("ethos"):
        return f"Vela's own estimate comes with a build: deploy --target {profile.name}"
    return f"no published measurements of {profile.name}: no latency estimate"


def _require_static(facts: Sequence[OpFacts]) -> None:
    entering, _ = boundary(facts)
    open_axes = [shape for shape in entering if any(isinstance(size, str) for size in shape[1:])]
    if open_axes:
        shapes = ", ".join("x".join(map(str, shape)) for shape in open_axes)
        raise InputError(
            "The cost of a graph whose shapes are not known cannot be estimated.",
            found=f"input of shape {shapes}",
            remedy="Fix the shape: --input NAME:1x128:int64.",
        )
