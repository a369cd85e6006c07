"""Makes a backend's candidates, runs each, and judges it against the reference, the budgets and the gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from edgedeploy.compare import compare
from edgedeploy.device_profiles.schema import DeviceProfile
from edgedeploy.errors import MissingToolError, ToolFailedError
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.graph.scores import evident_classes, score_outputs
from edgedeploy.interfaces import Artefact, ExportContext, Exporter, Rejection, RunJob, Runner, RunResult, Selection
from edgedeploy.judge import judge_budgets, judge_metric, judge_quality
from edgedeploy.looped import NOT_RUN, Looped, run_loop
from edgedeploy.prepare import Plan, Prepared
from edgedeploy.quality.metrics import MetricFigure, metric_figures
from edgedeploy.stages import Stages
from edgedeploy.targets.cost import explain, fill_estimates
from edgedeploy.trial import Trial, class_axes, labels_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.calibration.session import Calibration

#: Layers that the report lists under "where the time goes".
SLOWEST_LAYERS = 10


def try_candidates(
    chosen: Plan, prepared: Prepared, context: ExportContext, exporter: Exporter, runner: Runner, stages: Stages
) -> list[Trial]:
    """Make, run and judge candidates until one passes, or all of them where the fastest is wanted."""
    trials: list[Trial] = []
    failures: list[ToolFailedError] = []
    candidates = exporter.candidates(context)
    while True:
        with stages.stage("export"):
            artefact = next(candidates, None)
        if artefact is None:
            break
        context.progress.note(f"{context.profile.name}: trying {artefact.candidate}")
        with stages.stage("run"):
            try:
                trial = _try(chosen, prepared, context, runner, artefact)
            except ToolFailedError as error:
                # A candidate may break the tool, and a later one be the cure; a broken device stays broken.
                if chosen.request.device:
                    raise
                failures.append(error)
                context.rejections.append(Rejection(artefact.candidate, str(error)))
                context.progress.note(f"{artefact.candidate} was dropped: {error}")
                continue
        trials.append(trial)
        if trial.failed:
            context.rejections.append(trial.rejection())
        elif exporter.selection is Selection.FIRST_PASSING:
            break
    if failures and not trials:
        raise failures[0]
    if not trials:
        raise ToolFailedError(f"The backend of {context.profile.name} made no artefact of this model.")
    return trials


def _try(chosen: Plan, prepared: Prepared, context: ExportContext, runner: Runner, artefact: Artefact) -> Trial:
    job = RunJob(
        profile=context.profile,
        samples=prepared.data.evaluation,
        work_dir=context.work_dir / f"run-{artefact.candidate}",
        device=chosen.request.device,
        may_build=True,
        progress=context.progress,
    )
    job.work_dir.mkdir()
    try:
        result = runner.run(artefact, job)
    except MissingToolError as error:
        result = RunResult({}, Evidence.NONE, notes=(str(error),))
    loop = None
    if prepared.states.pairs:
        loop = run_loop(runner, artefact, job, prepared.states.pairs) if result.outputs else Looped(why=NOT_RUN)
    return _judge(chosen, prepared, context.calibration, context.profile, artefact, result, loop)


def _judge(
    chosen: Plan,
    prepared: Prepared,
    calibration: Calibration,
    profile: DeviceProfile,
    artefact: Artefact,
    result: RunResult,
    loop: Looped | None = None,
) -> Trial:
    """Compare a run, and a loop where there are states, with the reference and judge every budget and gate."""
    labels, axes = _labels(chosen, prepared), judged_classes(chosen, prepared)
    comparisons = (
        compare(prepared.reference, result.outputs, class_outputs=axes, labels=_of_classes(chosen, labels))
        if result.outputs
        else ()
    )
    evidence = result.evidence
    if loop is not None:
        comparisons += loop.compared(prepared.loop_reference, axes, _of_classes(chosen, labels))
        evidence = min(evidence, loop.evidence, key=lambda item: item.strength) if loop.outputs else evidence
    measured = {figure.name: figure for figure in artefact.figures}
    measured.update({figure.name: figure for figure in result.figures})
    metrics = _metrics(chosen, prepared, result, axes, labels)
    measured.update({item.name: item for item in map(partial(_as_figure, evidence=result.evidence), metrics)})
    figures = fill_estimates(prepared.graph_for(profile), profile, artefact.precision, tuple(measured.values()))
    quality = judge_quality(
        profile.quality,
        comparisons,
        evidence,
        data_free=prepared.data.data_free or artefact.data_free,
        clipped_fraction=_clipped(artefact, calibration),
        allowed=chosen.request.allow_unverified,
    )
    drop = judge_metric(
        metrics, chosen.config.metric.max_drop, result.evidence, data_free=prepared.data.data_free or artefact.data_free
    )
    verdicts = (*judge_budgets(profile, figures), *quality, *drop)
    if loop is not None:
        verdicts += loop.verdicts(chosen.request.allow_unverified)
    return Trial(
        artefact,
        _explained(prepared, profile, artefact, result, figures),
        figures,
        comparisons,
        verdicts,
        loop.outputs if loop is not None else {},
    )


def judged_classes(chosen: Plan, prepared: Prepared) -> dict[str, int]:
    """The class axes of the outputs that are judged as class scores: those with labels or named, else what looks so."""
    metric = chosen.config.metric
    named = {*_labels(chosen, prepared), metric.output} - {""} or {
        name
        for name, softmax in score_outputs(prepared.graph.model).items()
        if softmax or metric.kind == "classification" or evident_classes(prepared.reference[name])
    }
    return class_axes(prepared.reference, named, metric.kind)


def _labels(chosen: Plan, prepared: Prepared) -> dict[str, NDArray[Any]]:
    scores = tuple(score_outputs(prepared.graph.model))
    return labels_of(prepared.data.evaluation, chosen.config.metric.output, scores, tuple(prepared.reference))


def _of_classes(chosen: Plan, labels: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
    """Labels that are classes; those of texts and regressions judge by their metric only."""
    return labels if chosen.config.metric.kind in ("", "classification", "segmentation") else {}


def _metrics(
    chosen: Plan,
    prepared: Prepared,
    result: RunResult,
    axes: Mapping[str, int],
    labels: Mapping[str, NDArray[Any]],
) -> tuple[MetricFigure, ...]:
    """What deploy.toml's ``[metric]`` asks for; nothing where it names no kind or nothing was run."""
    metric = chosen.config.metric
    if not metric.kind or not result.outputs:
        return ()
    output = metric.output or next(iter((*score_outputs(prepared.graph.model), *prepared.reference)))
    return metric_figures(
        metric.kind,
        output,
        prepared.reference[output],
        result.outputs[output],
        labels.get(output),
        class_axis=axes.get(output, 2 if prepared.reference[output].ndim >= 5 else -1),
        top_k=metric.top_k,
        blank=metric.blank,
        separator=metric.separator,
    )


def _as_figure(metric: MetricFigure, evidence: Evidence) -> Figure:
    how = f"{metric.output} against {metric.against}; FP32 {metric.reference_value:.4g}, drop {metric.drop:.4g}"
    return Figure(metric.name, metric.value, evidence, how=how)


def _explained(
    prepared: Prepared, profile: DeviceProfile, artefact: Artefact, result: RunResult, figures: tuple[Figure, ...]
) -> RunResult:
    """Add where the time goes, layer by layer, where the latency is an estimate."""
    estimated = any(item.name == "latency_ms" and item.evidence is Evidence.ESTIMATE for item in figures)
    if not estimated or artefact.precision is None:
        return result
    explained = explain(prepared.graph_for(profile).facts, profile, artefact.precision)
    rows = [
        {"layer": item.name, "kind": item.kind, "us": round(item.latency_us, 2), "share": round(item.share, 3),
         "bound": item.bound}
        for item in explained.top(SLOWEST_LAYERS)
    ]  # fmt: skip
    about = {"slowest_layers": rows, "overhead_us": round(explained.overhead_us, 2)}
    return replace(result, details={**result.details, **about})


def _clipped(artefact: Artefact, calibration: Calibration) -> float | None:
    """Share of calibration values outside the artefact's ranges: the exporter's figure, else counted on its graph."""
    import onnx

    from edgedeploy.calibration.clipping import clipped_fraction

    stated = artefact.details.get("clipped_fraction")
    if isinstance(stated, int | float):
        return float(stated)
    graph = artefact.folder / (artefact.emulation or artefact.main)
    if artefact.scheme.startswith("float") or graph.suffix != ".onnx":
        return None
    model = onnx.load(graph)
    # Asking for the table may cost a whole calibration: not for a candidate without quantized activations.
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    return clipped_fraction(model, calibration.table) if quantized else None
