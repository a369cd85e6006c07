"""`CoreMlRunner`: executes the saved package here, or on a Mac reached over a transport."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.errors import ToolFailedError
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.interfaces import Artefact, RunJob, RunResult, cannot_loop
from edgedeploy.states import fed_back
from edgedeploy.targets.coreml.feeds import collect, feed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.targets.coreml.gate import TwinReport

_WATCHED_SAMPLES = 4
_NOT_EXERCISED = (
    "The saved program was executed by edgedeploy's reference executor: Apple's compiler, its accumulation order "
    "and placement on the Neural Engine were not exercised."
)


class CoreMlRunner:
    """Runs .mlpackages; ``device`` "" is the executor, "ssh:USER@HOST" or "local" a Mac."""

    def run(self, artefact: Artefact, job: RunJob) -> RunResult:
        """Prove the FLOAT32 twin, then run the package over every sample.

        Raises:
            ToolFailedError: where the twin does not compute what torch computes, or the Mac fails.
            InputError: for a damaged package.
            UnsupportedOpError: for an op that has no kernel here.
        """
        if job.device and job.states:
            return cannot_loop("the Mac's script")
        if job.device:
            from edgedeploy.targets.coreml.mac import run_on_mac

            return run_on_mac(artefact, job)
        if job.states:
            outputs, details = _execute(artefact, job)
            return RunResult(outputs, Evidence.EXECUTOR, notes=(_NOT_EXERCISED,), details=details)
        figures, notes, details = _first_gate(artefact)
        outputs, more = _execute(artefact, job)
        overflow = _overflow(artefact, job)
        details |= more | {"overflow": overflow}
        notes += [_NOT_EXERCISED]
        if overflow:
            notes.append(f"float16 runs out or nearly so: {'; '.join(overflow[:5])}")
        advice = artefact.details.get("ane_advice") or []
        if advice:
            notes.append(f"advice for the Neural Engine, not placement ({len(advice)} in the manifest): {advice[0]}")
        return RunResult(outputs, Evidence.EXECUTOR, tuple(figures), tuple(notes), details)


def _first_gate(artefact: Artefact) -> tuple[list[Figure], list[str], dict[str, Any]]:
    relative = artefact.details.get("float32_twin")
    folder = artefact.folder / str(relative) if relative else None
    if folder is None or not folder.is_dir():
        return [], ["The FLOAT32 twin is not at hand, so the conversion itself was not proved again."], {}
    report = twin_report(artefact, folder)
    if not report.passed:
        raise ToolFailedError(
            "The converted Core ML program does not compute what torch computes, in float32 already.",
            found=f"candidate {artefact.candidate!r}: {report}",
            remedy="Another conversion route may: it is tried next, where there is one. Please report the model.",
        )
    worst = min(report.agreements, key=lambda item: item.cosine)
    error = max(item.error for item in report.agreements)
    how = f"FLOAT32 twin against torch, {report.samples} samples"
    figures = [
        Figure("float32_cosine_min", worst.cosine, Evidence.EXECUTOR, how=how),
        Figure("float32_max_error", error, Evidence.EXECUTOR, how=f"{how}; relative to the output's magnitude"),
    ]
    return figures, [], {"float32_gate": str(report)}


def twin_report(artefact: Artefact, folder: Path) -> TwinReport:
    """Compare the twin in ``folder`` with the torch outputs stored beside it."""
    from edgedeploy.targets.coreml.gate import check_twin

    with np.load(folder / "reference.npz", allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    numbers = sorted({int(key.split("/")[1]) for key in arrays})

    def part(kind: str, number: int) -> dict[str, NDArray[Any]]:
        prefix = f"{kind}/{number}/"
        return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}

    feeds = [feed(artefact.contract, artefact.details, part("input", number)) for number in numbers]
    names = list(part("output", numbers[0]))
    expected = {name: np.stack([part("output", number)[name] for number in numbers]) for name in names}
    package = folder / artefact.main
    return check_twin(package, feeds, expected, _collector(artefact))


def _collector(artefact: Artefact) -> Callable[[dict[str, Any]], dict[str, NDArray[Any]]]:
    return lambda results: collect(artefact.contract, artefact.details, results)


def _execute(artefact: Artefact, job: RunJob) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    from edgedeploy.targets.coreml.executor import Executor

    executor = Executor(artefact.path)
    gathered: dict[str, list[NDArray[Any]]] = {}
    last: dict[str, NDArray[Any]] | None = None
    for sample in job.progress.track(job.samples, what="Executing the Core ML program", total=len(job.samples)):
        executor.reset()
        results = executor.run(feed(artefact.contract, artefact.details, fed_back(sample, last, job.states)))
        last = collect(artefact.contract, artefact.details, results)
        for name, value in last.items():
            gathered.setdefault(name, []).append(_float32(value))
    counts: dict[str, int] = {}
    for operation in executor.function.block.operations:
        counts[operation.type] = counts.get(operation.type, 0) + 1
    details = {
        "op_counts": dict(sorted(counts.items())),
        "peak_activation_bytes": executor.peak_bytes,
        "weight_bytes": executor.package.weight_bytes,
    }
    return {name: np.stack(values) for name, values in gathered.items()}, details


def _float32(value: NDArray[Any]) -> NDArray[Any]:
    return value.astype(np.float32) if value.dtype.kind == "f" else value


def _overflow(artefact: Artefact, job: RunJob) -> list[str]:
    from edgedeploy.targets.coreml.overflow import watch

    feeds = [feed(artefact.contract, artefact.details, sample) for sample in job.samples.take(_WATCHED_SAMPLES)]
    findings = watch(artefact.path, feeds)
    modules = _modules(artefact)
    return [
        f"{finding}" + (f" in {modules[finding.operation]}" if finding.operation in modules else "")
        for finding in findings
    ]


def _modules(artefact: Artefact) -> dict[str, str]:
    relative = artefact.details.get("float32_twin")
    file = artefact.folder / str(relative) / "modules.json" if relative else None
    return dict(json.loads(file.read_text())) if file is not None and file.is_file() else {}
