"""`deploy verify`: re-hash a bundle, replay its golden vectors, and, on a device, measure and append."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from edgedeploy.backends import backend
from edgedeploy.bundle.append import append_run
from edgedeploy.bundle.faults import fault
from edgedeploy.bundle.golden import read_golden, read_loop
from edgedeploy.bundle.manifest import FigureRecord, Manifest, Measurement, Measurements, to_json
from edgedeploy.bundle.read import check_bundle, read_bundle
from edgedeploy.bundle.replay import judge_replay
from edgedeploy.bundle.tree import ARTEFACT, GOLDEN
from edgedeploy.bundle.write import measurement
from edgedeploy.compare import compare
from edgedeploy.confinement import in_worker
from edgedeploy.device_profiles.loader import override
from edgedeploy.device_profiles.schema import DeviceProfile
from edgedeploy.errors import ExitCode, InputError, ToolFailedError
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.interfaces import Artefact, RunJob, Runner
from edgedeploy.judge import Verdict, exit_code, judge_budgets
from edgedeploy.looped import run_loop
from edgedeploy.plain_text import printable
from edgedeploy.progress import Progress
from edgedeploy.sandbox.limits import limits_for
from edgedeploy.sandbox.watch import arm
from edgedeploy.tensors import Contract, PortSpec
from edgedeploy.trial import Trial
from edgedeploy.untrusted import shown

if TYPE_CHECKING:
    from edgedeploy.sandbox.channel import Channel


@dataclass(frozen=True)
class Verification:
    """What a verification found."""

    target: str
    exit_code: ExitCode
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    appended: bool


@dataclass(frozen=True)
class Question:
    """What a bundle is asked.

    Attributes:
        device: where to measure; "" to replay on this host.
        require: the proof that a budget takes, as ``latency=device``.
        step_seconds: CPU seconds that one step may take; ``None`` for a limit that grows with the bundle.
    """

    folder: Path
    device: str = ""
    require: tuple[str, ...] = ()
    step_seconds: float | None = None


def verify_bundle(asked: Question, progress: Progress | None = None) -> Verification:
    """Check every file and record, replay the golden vectors and, with a device, measure there and append.

    A limited worker that cannot write into the bundle reads and runs it; this process appends the run and its report.
    Nothing in the bundle is built, and no script of it is run. With ``require`` and without a device, the budgets are
    judged by the runs that the bundle records.

    Raises:
        InputError: not a bundle, or changed since it was built.
        MissingToolError, ToolFailedError: the replay could not be run.
    """
    limits = limits_for(asked.folder, network=bool(asked.device), step_cpu_s=asked.step_seconds)
    found = in_worker(f"{__name__}:replay", asked, limits, progress)
    if found["run"] is not None:
        append_run(asked.folder.resolve(), Measurement.model_validate(found["run"]))
    return Verification(
        target=str(found["target"]),
        exit_code=ExitCode(found["exit_code"]),
        verdicts=tuple(Verdict.from_json(item) for item in found["verdicts"]),
        notes=tuple(map(str, found["notes"])),
        appended=found["run"] is not None,
    )


def replay(asked: Question, channel: Channel) -> dict[str, Any]:
    """In the worker: check, replay, measure; returns what `Verification` is made of, and the run to append."""
    arm("verify")
    folder, device, require = asked.folder, asked.device, asked.require
    try:
        folder = folder.resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"There is no bundle at {shown(folder)}.", found=str(error)[:300]) from None
    manifest, measurements = read_bundle(folder)
    note = check_bundle(folder, manifest, measurements)
    profile = _profile(manifest, require)
    artefact = _artefact(folder, manifest, measurements)
    samples, recorded, reference = read_golden(folder / GOLDEN, artefact.contract)
    runner = backend(manifest.backend).load_runner()
    if device and not os.access(folder, os.W_OK):
        raise InputError(f"Nothing can be appended to {shown(folder)}.", remedy="Copy it where it can be written.")
    arm("measure" if device else "verify")
    with _scratch() as scratch:
        job = RunJob(profile, samples, scratch, device, measure=bool(device), progress=channel)
        try:
            result = runner.run(artefact, job)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            # What a backend wrote into its own record it reads back as it was; of a stranger's nothing is sure.
            raise InputError(
                "The record of the artefact in the manifest is not what its backend writes.",
                found=f"{type(error).__name__}: {printable(error, limit=300)}",
            ) from error
        comparisons = compare(reference, result.outputs)
        same = judge_replay(recorded, result.outputs, result.evidence)
        loop = _replay_loop(folder, manifest, artefact, runner, job)
    figures = {figure.name: figure for figure in artefact.figures}
    figures.update({figure.name: figure for figure in result.figures})
    verdicts: tuple[Verdict, ...] = (same, *loop)
    run: Measurement | None = None
    if device:
        verdicts = (*verdicts, *judge_budgets(profile, figures.values()))
        trial = Trial(artefact, result, tuple(figures.values()), comparisons, verdicts)
        run = measurement(trial, device=device, samples=len(samples), notes=result.notes)
    elif require:
        verdicts = (*verdicts, *judge_budgets(profile, _recorded_figures(measurements)))
    return {
        "target": manifest.target,
        "exit_code": int(exit_code(verdicts)),
        "verdicts": [verdict.to_json() for verdict in verdicts],
        "notes": [*result.notes, *_said_before(measurements), *([note] if note else [])],
        "run": json.loads(to_json(run)) if run else None,
    }


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    try:
        folder = tempfile.mkdtemp(prefix="edgedeploy-verify-")
    except OSError as error:
        raise ToolFailedError(
            "There is no folder for temporary files.", found=str(error), remedy="Set TMPDIR to one with free space."
        ) from None
    try:
        yield Path(folder)
    except OSError as error:
        if (said := fault(error, Path(folder))) is None:
            raise
        raise said from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _profile(manifest: Manifest, require: tuple[str, ...]) -> DeviceProfile:
    try:
        profile = DeviceProfile.model_validate(manifest.profile)
    except (ValidationError, ValueError) as error:
        raise InputError(
            "The profile in the manifest is none of this version.", found=" ".join(str(error).split())[:300]
        ) from None
    return override(profile, proofs=require)


def _recorded_figures(measurements: Measurements) -> tuple[Figure, ...]:
    """Of each quantity the strongest figure that a run of the bundle recorded, the latest among equals."""
    found: dict[str, Figure] = {}
    for run in measurements.runs:
        for record in run.figures:
            figure = _figure(record)
            if figure.name not in found or figure.evidence.at_least(found[figure.name].evidence):
                found[figure.name] = figure
    return tuple(found.values())


def _replay_loop(
    folder: Path, manifest: Manifest, artefact: Artefact, runner: Runner, job: RunJob
) -> tuple[Verdict, ...]:
    """The golden vectors as one sequence, where the model has states: what the artefact gives when fed its own."""
    states = manifest.states
    if not states:
        return ()
    gives = {port.source_name for port in artefact.contract.outputs}
    takes = {port.source_name for port in artefact.contract.inputs}
    if not (set(states) <= gives and set(states.values()) <= takes):
        raise InputError("The manifest names states that the artefact does not have.", found=shown(str(states)))
    recorded = read_loop(folder / GOLDEN, artefact.contract, len(job.samples))
    looped = run_loop(runner, artefact, job, states)
    if not looped.outputs:
        return looped.verdicts(())
    same = judge_replay(recorded, looped.outputs, looped.evidence)
    return (replace(same, name="golden_loop"),)


def _said_before(measurements: Measurements) -> tuple[str, ...]:
    """What the build itself ended with, where that was no pass: a replay alone does not mend it."""
    built = measurements.runs[0]
    wrong = [item.name for item in built.verdicts if item.required and item.outcome in ("fail", "unverified")]
    if not built.exit_code:
        return ()
    return (f"when it was built, the run ended with exit code {built.exit_code}: {', '.join(wrong)}",)


def _figure(record: FigureRecord) -> Figure:
    try:
        evidence, statistics = Evidence(record.evidence), tuple(record.statistics.items())
        return Figure(record.name, record.value, evidence, record.how, record.low, record.high, statistics)
    except ValueError as error:
        raise InputError("A figure in the measurements is none.", found=printable(error, limit=300)) from None


def _artefact(folder: Path, manifest: Manifest, measurements: Measurements) -> Artefact:
    record = manifest.artefact
    details = dict(record.details)
    emulation = details.pop("emulation", "")
    details.pop("float32_twin", None)  # it lay beside the artefact while that was made; no bundle holds it
    built = (_figure(item) for item in measurements.runs[0].figures)
    return Artefact(
        candidate=record.candidate,
        folder=folder / ARTEFACT,
        main=Path(record.main).relative_to(ARTEFACT),
        contract=Contract(
            tuple(PortSpec(**_port(port.model_dump())) for port in record.inputs),
            tuple(PortSpec(**_port(port.model_dump())) for port in record.outputs),
        ),
        scheme=record.scheme,
        figures=tuple(item for item in built if item.evidence in (Evidence.ARTEFACT, Evidence.ESTIMATE)),
        details=details,
        emulation=Path(emulation) if emulation else None,
        unstable=manifest.unstable,
        data_free=manifest.data.data_free,
    )


def _port(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "shape": tuple(fields["shape"]), "to_layout": tuple(fields["to_layout"])}
