"""`deploy verify`: re-hash a bundle, replay its golden vectors, and, on a device, measure and append."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgedeploy.backends import backend
from edgedeploy.bundle.append import append_run
from edgedeploy.bundle.faults import fault
from edgedeploy.bundle.golden import read_golden
from edgedeploy.bundle.manifest import FigureRecord, Manifest, Measurements
from edgedeploy.bundle.read import check_bundle, read_bundle
from edgedeploy.bundle.replay import judge_replay
from edgedeploy.bundle.tree import ARTEFACT, GOLDEN
from edgedeploy.bundle.write import measurement
from edgedeploy.compare import compare
from edgedeploy.device_profiles.loader import override
from edgedeploy.device_profiles.schema import DeviceProfile
from edgedeploy.errors import ExitCode, InputError, ToolFailedError
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.interfaces import Artefact, RunJob
from edgedeploy.judge import Verdict, exit_code, judge_budgets
from edgedeploy.plain_text import printable
from edgedeploy.progress import NoProgress, Progress
from edgedeploy.tensors import Contract, PortSpec
from edgedeploy.trial import Trial
from edgedeploy.untrusted import shown


@dataclass(frozen=True)
class Verification:
    """What a verification found."""

    target: str
    exit_code: ExitCode
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    appended: bool


def verify_bundle(
    folder: Path, *, device: str = "", require: tuple[str, ...] = (), progress: Progress | None = None
) -> Verification:
    """Check every file and record, replay the golden vectors and, with ``device``, measure there and append.

    Nothing is written into the bundle but the appended run and its report, nothing in it is built, and no script of it
    is run. With ``require`` and without ``device``, the budgets are judged by the runs that the bundle records.

    Raises:
        InputError: not a bundle, or changed since it was built.
        MissingToolError, ToolFailedError: the replay could not be run.
    """
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
    with _scratch() as scratch:
        job = RunJob(profile, samples, scratch, device, measure=bool(device), progress=progress or NoProgress())
        result = runner.run(artefact, job)
        comparisons = compare(reference, result.outputs)
        replay = judge_replay(recorded, result.outputs, result.evidence)
    figures = {figure.name: figure for figure in artefact.figures}
    figures.update({figure.name: figure for figure in result.figures})
    verdicts: tuple[Verdict, ...] = (replay,)
    if device:
        verdicts = (replay, *judge_budgets(profile, figures.values()))
        trial = Trial(artefact, result, tuple(figures.values()), comparisons, verdicts)
        append_run(folder, measurement(trial, device=device, samples=len(samples), notes=result.notes))
    elif require:
        verdicts = (replay, *judge_budgets(profile, _recorded_figures(measurements)))
    notes = (*result.notes, *_said_before(measurements), *([note] if note else []))
    return Verification(manifest.target, exit_code(verdicts), verdicts, notes, bool(device))


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
