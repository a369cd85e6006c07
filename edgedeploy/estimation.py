"""`deploy estimate`: a model or a bundle on devices nobody has at hand, several side by side, without exporting."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.errors import InputError
from edgedeploy.judge import Verdict, judge_budgets
from edgedeploy.precision import FLOAT16, FLOAT32, Precision
from edgedeploy.sandbox.watch import arm
from edgedeploy.targets.cost import Estimate, explain, precision_of

if TYPE_CHECKING:
    from edgedeploy.device_profiles.schema import DeviceProfile
    from edgedeploy.graph.graph import Graph
    from edgedeploy.prepare import Plan
    from edgedeploy.sandbox.channel import Channel

#: Budgets that the cost model can say something about.
_BUDGETS = ("latency_ms", "throughput_per_s", "energy_mj", "power_mw", "ram_kb")


@dataclass(frozen=True)
class TargetEstimate:
    """One device: the estimate, its budgets judged, and what would bring a missed one down."""

    estimate: Estimate
    verdicts: tuple[Verdict, ...]
    advice: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; layers in execution order."""
        found = self.estimate
        return {
            "target": found.target,
            "precision": found.precision,
            "status": found.status,
            "figures": [asdict(figure) for figure in found.figures],
            "overhead_us": found.overhead_us,
            "unknown_ops": list(found.unknown_ops),
            "layers": [asdict(layer) for layer in found.layers],
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "advice": list(self.advice),
        }


def estimate_graph(
    graph: Graph, profile: DeviceProfile, *, precision: str = "", rate_per_s: float | None = None
) -> TargetEstimate:
    """Estimate a captured graph on one device; milliseconds of work for a hundred ops.

    Args:
        precision: a scheme ("float16", "qnn-a16w8"); by default that of the profile.
        rate_per_s: inferences a second, for power.

    Raises:
        InputError: a shape or the precision is not known, or the rate is not positive.
    """
    if rate_per_s is not None and not 0 < rate_per_s < float("inf"):
        raise InputError(f"A rate of {rate_per_s:g} inferences a second makes no sense.", remedy="Give one above 0.")
    arithmetic = precision_of(precision) if precision else profile_precision(profile)
    found = explain(graph.facts, profile, arithmetic, rate_per_s=rate_per_s)
    budgets = {key: budget for key, budget in profile.budget.items() if key in _BUDGETS}
    verdicts = judge_budgets(profile.model_copy(update={"budget": budgets}), found.figures)
    return TargetEstimate(found, verdicts, _advice(graph, profile, found))


def profile_precision(profile: DeviceProfile) -> Precision:
    """The arithmetic that a profile's scheme stands for.

    The Neural Engine computes in float16 in whatever format weights are stored.

    Raises:
        InputError: a scheme of a third party's backend.
    """
    scheme = profile.quantization.scheme or FLOAT32.name
    if profile.cost is not None and profile.cost.form == "ane":
        return FLOAT32 if scheme == FLOAT32.name else FLOAT16
    return precision_of(scheme)


def plan_estimate(model: Path, targets: Sequence[str], *, precision: str = "", **loading: Any) -> Plan:
    """Check an estimate's model, deploy.toml and targets before anything is loaded.

    Args:
        model: a model file, or a bundle that carries its graph as ONNX.
        precision: of `estimate_graph`.
        **loading: the fields of `DeployRequest` that say how the model is loaded.

    Raises:
        InputError: no such file, a bundle whose artefact is not ONNX, an unknown precision, a mistake in deploy.toml,
            or no target.
    """
    from edgedeploy.prepare import plan
    from edgedeploy.request import DeployRequest

    if precision:
        precision_of(precision)
    return plan(
        DeployRequest(model=_bundled_model(model) if model.is_dir() else model, targets=tuple(targets), **loading)
    )


def captured(chosen: Plan) -> Graph:
    """Load and capture a planned estimate's model, with a batch of 1, in a worker; only the graph comes back."""
    import onnx

    from edgedeploy.confinement import in_worker, limits_of
    from edgedeploy.graph.graph import Graph

    with tempfile.TemporaryDirectory(prefix="edgedeploy-") as folder:
        path = Path(folder) / "graph.onnx"
        in_worker(f"{__name__}:capture_to_file", (chosen, path), limits_of(chosen, path.parent))
        return Graph(onnx.load(path, load_external_data=False))


def capture_to_file(arguments: tuple[Plan, Path], channel: Channel) -> None:
    """In the worker: load, capture, and write the graph to a file."""
    import onnx

    from edgedeploy.graph.batch import fixed_batch
    from edgedeploy.graph.capture import capture
    from edgedeploy.prepare import load

    chosen, path = arguments
    arm("load")
    model = load(replace(chosen, profiles=()))
    arm("capture")
    onnx.save(fixed_batch(capture(model)).model, path)


def graph_of(path: Path, **loading: Any) -> Graph:
    """The captured graph of a model file, or of a bundle that carries its graph as ONNX.

    Args:
        **loading: the fields of `DeployRequest` that say how the model is loaded.

    Raises:
        InputError: no such file, or a bundle whose artefact is not ONNX.
    """
    from edgedeploy.prepare import plan_model
    from edgedeploy.request import DeployRequest

    return captured(plan_model(DeployRequest(model=_bundled_model(path) if path.is_dir() else path, **loading)))


def parse_rate(text: str) -> float | None:
    """``10/s`` or ``10`` → 10.0; ``30/min`` → 0.5; empty → ``None``.

    Raises:
        InputError: not of that form.
    """
    if not text:
        return None
    number, _, unit = text.partition("/")
    seconds = {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0}.get(unit.strip())
    try:
        value = float(number) / seconds if seconds else None
    except ValueError:
        value = None
    if value is None or not 0 < value < float("inf"):
        raise InputError(f"--rate {text!r} is not a rate.", remedy="For example: --rate 10/s, --rate 30/min.")
    return value


def _bundled_model(folder: Path) -> Path:
    from edgedeploy.bundle.read import read_bundle

    manifest, _ = read_bundle(folder)
    main = folder / manifest.artefact.main
    float_model = manifest.artefact.scheme == "float32" and main.suffix == ".onnx" and main.is_file()
    if not float_model:
        raise InputError(
            f"The bundle {folder} holds no float ONNX model.",
            found=f"{manifest.artefact.main} ({manifest.artefact.scheme})",
            remedy="Estimate the model it was made from.",
        )
    return main


def _advice(graph: Graph, profile: DeviceProfile, found: Estimate) -> tuple[str, ...]:
    """What would bring a latency budget down that is not surely met: the layers to look at, and the precision."""
    budget, latency = profile.budget.get("latency_ms"), found.figure("latency_ms")
    if budget is None or budget.max is None or latency is None or latency.value is None or latency.high is None:
        return ()
    if latency.high <= budget.max:
        return ()
    lines = [f"latency: {latency.value:.3g} ms is estimated, {budget.max:g} ms is allowed"]
    spare = latency.value - budget.max
    slow = found.top(3)
    saved = sum(layer.latency_us for layer in slow) / 1e3
    names = ", ".join(f"{layer.name} ({layer.latency_us / 1e3:.3g} ms, {layer.bound}-bound)" for layer in slow)
    lines.append(f"the slowest layers take {saved:.3g} ms of it: {names}")
    if spare > 0:
        lines.append(f"{spare:.3g} ms must go: {spare / latency.value:.0%} of the time")
    if profile.cost:
        for other in profile.cost.latency:
            if other != found.precision:
                value = explain(graph.facts, profile, precision_of(other)).figure("latency_ms")
                if value is not None and value.value is not None and value.value < latency.value:
                    lines.append(f"in {other} it would take {value.value:.3g} ms")
    return tuple(lines)
