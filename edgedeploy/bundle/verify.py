"""`deploy verify`: re-hash a bundle, replay its golden vectors, and, on a device, measure and append."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from edgedeploy.backends import backend
from edgedeploy.bundle.golden import read_golden
from edgedeploy.bundle.manifest import Manifest, Measurements, to_json
from edgedeploy.bundle.place import MANIFEST
from edgedeploy.bundle.report import render_report
from edgedeploy.bundle.tree import hash_tree, sha256_file
from edgedeploy.bundle.write import ARTEFACT, GOLDEN, MEASUREMENTS, REPORT, UNHASHED, measurement
from edgedeploy.compare import compare
from edgedeploy.device_profiles.loader import override
from edgedeploy.device_profiles.schema import DeviceProfile
from edgedeploy.errors import ExitCode, InputError, ToolFailedError
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.interfaces import Artefact, RunJob
from edgedeploy.judge import Outcome, Verdict, exit_code, judge_budgets
from edgedeploy.progress import NoProgress, Progress
from edgedeploy.tensors import Contract, PortSpec
from edgedeploy.trial import Trial

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A replay on another machine may round differently: this share of the outputs' own spread is allowed.
REPLAY_TOLERANCE = 0.02


@dataclass(frozen=True)
class Verification:
    """What a verification found."""

    target: str
    exit_code: ExitCode
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    appended: bool


def read_bundle(folder: Path) -> tuple[Manifest, Measurements]:
    """Read a bundle's two records.

    Raises:
        InputError: not a bundle, or one of another format.
    """
    try:
        manifest = Manifest.model_validate(json.loads((folder / MANIFEST).read_bytes()))
        measurements = Measurements.model_validate(json.loads((folder / MEASUREMENTS).read_bytes()))
    except (OSError, ValueError, ValidationError) as error:
        raise InputError(f"{folder} is not a bundle of this version.", found=str(error).splitlines()[0]) from None
    return manifest, measurements


def check_hashes(folder: Path, manifest: Manifest, measurements: Measurements) -> None:
    """Compare every file with the manifest, and the manifest with the measurements.

    Raises:
        InputError: a file was changed, added or removed; all are named.
    """
    found = hash_tree(folder, exclude=UNHASHED)
    problems = [f"{name} is missing" for name in manifest.files if name not in found]
    problems += [f"{name} was added" for name in found if name not in manifest.files]
    problems += [f"{name} was changed" for name, value in manifest.files.items() if found.get(name, value) != value]
    if sha256_file(folder / MANIFEST) != measurements.manifest_sha256:
        problems.append(f"{MANIFEST} was changed")
    if problems:
        raise InputError(
            f"{folder} is not what was built.",
            found="; ".join(problems),
            remedy="Take the bundle from its source again.",
        )


def verify_bundle(
    folder: Path, *, device: str = "", require: tuple[str, ...] = (), progress: Progress | None = None
) -> Verification:
    """Re-hash, replay the golden vectors and, with ``device``, measure there and append to measurements.json.

    Raises:
        InputError: not a bundle, or changed since it was built.
        MissingToolError, ToolFailedError: the replay could not be run.
    """
    manifest, measurements = read_bundle(folder)
    check_hashes(folder, manifest, measurements)
    profile = override(DeviceProfile.model_validate(manifest.profile), proofs=require)
    samples, recorded, reference = read_golden(folder / GOLDEN)
    artefact = _artefact(folder, manifest, measurements)
    runner = backend(manifest.backend).load_runner()
    with tempfile.TemporaryDirectory(prefix="edgedeploy-verify-") as scratch:
        job = RunJob(profile, samples, Path(scratch), device, measure=bool(device), progress=progress or NoProgress())
        result = runner.run(artefact, job)
        comparisons = compare(reference, result.outputs)
        replay = _judge_replay(recorded, result.outputs, result.evidence)
    figures = {figure.name: figure for figure in artefact.figures}
    figures.update({figure.name: figure for figure in result.figures})
    verdicts = (replay, *judge_budgets(profile, figures.values())) if device else (replay,)
    if device:
        trial = Trial(artefact, result, tuple(figures.values()), comparisons, verdicts)
        _append(folder, manifest, measurements, trial, device, len(samples))
    return Verification(manifest.target, exit_code(verdicts), verdicts, result.notes, bool(device))


def _judge_replay(recorded: dict[str, NDArray[Any]], outputs: Any, evidence: Evidence) -> Verdict:
    """The golden outputs again: the largest difference, relative to how much the outputs vary."""
    worst = 0.0
    for name, want in recorded.items():
        got = np.asarray(outputs[name][: len(want)], dtype=np.float64)
        if got.shape != want.shape:
            raise ToolFailedError(f"Output {name!r} has shape {got.shape}, the bundle recorded {want.shape}.")
        spread = float(np.std(want.astype(np.float64))) or 1.0
        worst = max(worst, float(np.max(np.abs(got - want), initial=0.0)) / spread)
    outcome = Outcome.PASS if worst <= REPLAY_TOLERANCE else Outcome.FAIL
    why = "" if outcome is Outcome.PASS else "the golden vectors gave other outputs than when the bundle was built"
    limit = f"≤ {REPLAY_TOLERANCE:g} of the spread"
    return Verdict("golden_vectors", "quality", limit, worst, None, None, evidence, outcome, True, why)


def _artefact(folder: Path, manifest: Manifest, measurements: Measurements) -> Artefact:
    record = manifest.artefact
    details = dict(record.details)
    emulation = details.pop("emulation", "")
    first = measurements.runs[0] if measurements.runs else None
    built = (
        Figure(
            item.name,
            item.value,
            Evidence(item.evidence),
            item.how,
            item.low,
            item.high,
            tuple(item.statistics.items()),
        )
        for item in (first.figures if first else ())
        if item.evidence in (Evidence.ARTEFACT, Evidence.ESTIMATE)
    )
    return Artefact(
        candidate=record.candidate,
        folder=folder / ARTEFACT,
        main=Path(record.main).relative_to(ARTEFACT),
        contract=Contract(
            tuple(PortSpec(**_port(port.model_dump())) for port in record.inputs),
            tuple(PortSpec(**_port(port.model_dump())) for port in record.outputs),
        ),
        scheme=record.scheme,
        figures=tuple(built),
        details=details,
        emulation=Path(emulation) if emulation else None,
        unstable=manifest.unstable,
        data_free=manifest.data.data_free,
    )


def _port(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "shape": tuple(fields["shape"]), "to_layout": tuple(fields["to_layout"])}


def _append(
    folder: Path, manifest: Manifest, measurements: Measurements, trial: Trial, device: str, samples: int
) -> None:
    """Add one run; both files are written aside and moved into place."""
    record = measurement(trial, device=device, samples=samples, notes=trial.result.notes)
    updated = measurements.model_copy(update={"runs": [*measurements.runs, record]})
    for name, data in (
        (MEASUREMENTS, to_json(updated)),
        (REPORT, render_report(manifest, updated).encode()),
    ):
        aside = folder.with_name(f".{folder.name}-{name}")
        aside.write_bytes(data)
        aside.replace(folder / name)
