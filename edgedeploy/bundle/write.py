"""Assembles one bundle: artefact, golden vectors, lock, manifest, measurements and report."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.bundle.golden import write_golden
from edgedeploy.bundle.journal import appended
from edgedeploy.bundle.lock import FILE_NAME as LOCK
from edgedeploy.bundle.lock import Lock
from edgedeploy.bundle.manifest import (
    ArtefactRecord,
    CandidateRecord,
    DataRecord,
    FigureRecord,
    Manifest,
    Measurement,
    Measurements,
    ModelRecord,
    PortRecord,
    VerdictRecord,
    to_json,
)
from edgedeploy.bundle.picture import FILE_NAME as PICTURE
from edgedeploy.bundle.picture import render_layers
from edgedeploy.bundle.tree import (
    ARTEFACT,
    GOLDEN,
    MANIFEST,
    MEASUREMENTS,
    REPORT,
    UNHASHED,
    hash_tree,
    settle_modes,
    sha256_file,
)
from edgedeploy.calibration.dataset import Dataset
from edgedeploy.device_profiles.schema import DeviceProfile

if TYPE_CHECKING:
    from edgedeploy.prepare import Plan, Prepared
    from edgedeploy.tensors import PortSpec
    from edgedeploy.trial import Trial

#: Packages whose version can change the artefact's bytes.
_TOOLS = ("edgedeploy", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class BundleParts:
    """Everything a bundle records."""

    plan: Plan
    prepared: Prepared
    profile: DeviceProfile
    trial: Trial
    candidates: tuple[CandidateRecord, ...]
    lock: Lock
    stages_s: Mapping[str, float]
    peak_memory_mb: float
    notes: tuple[str, ...] = ()
    calibration_method: str = ""
    confinement: Mapping[str, Any] = field(default_factory=dict)


def write_bundle(folder: Path, parts: BundleParts) -> Path:
    """Write the bundle into the new folder ``folder`` and return it; the artefact's folder is moved into it."""
    folder.mkdir()
    artefact = parts.trial.artefact
    artefact.folder.rename(folder / ARTEFACT)
    evaluation = parts.prepared.data.evaluation
    write_golden(folder / GOLDEN, evaluation, parts.trial.result.outputs, parts.prepared.reference, parts.trial.loop)
    (folder / LOCK).write_bytes(parts.lock.to_json())
    details = parts.trial.result.details
    if slowest := details.get("slowest_layers"):
        besides = f"besides {details['overhead_us']} µs for start, input and output"
        title = f"Where the time goes: {parts.prepared.model.name} on {parts.profile.name}, estimated, {besides}"
        (folder / PICTURE).write_text(render_layers(title, slowest), encoding="utf-8", newline="\n")
    manifest = _manifest(folder, parts)
    (folder / MANIFEST).write_bytes(to_json(manifest))
    run = measurement(
        parts.trial, device=parts.plan.request.device, samples=_samples_run(parts.trial), notes=parts.notes
    )
    measurements = Measurements(
        manifest_sha256=sha256_file(folder / MANIFEST),
        stages_s={name: round(seconds, 3) for name, seconds in parts.stages_s.items()},
        peak_memory_mb=round(parts.peak_memory_mb, 1),
        confinement=dict(parts.confinement),
        runs=[],
    )
    journal, report = appended(manifest, measurements, run)
    (folder / MEASUREMENTS).write_bytes(to_json(journal))
    (folder / REPORT).write_bytes(report)
    settle_modes(folder)
    return folder


def measurement(trial: Trial, *, device: str, samples: int, notes: tuple[str, ...]) -> Measurement:
    """Turn one judged run into its record."""
    return Measurement(
        at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        device=device or "this host",
        evidence=str(trial.result.evidence),
        samples=samples,
        figures=[
            FigureRecord(
                name=figure.name,
                value=figure.value,
                evidence=str(figure.evidence),
                how=figure.how,
                low=figure.low,
                high=figure.high,
                statistics=dict(figure.statistics),
            )
            for figure in trial.figures
        ],
        comparisons=[asdict(item) for item in trial.comparisons],
        verdicts=[
            VerdictRecord(**{**asdict(item), "evidence": str(item.evidence), "outcome": str(item.outcome)})
            for item in trial.verdicts
        ],
        exit_code=int(trial.exit_code),
        notes=list(notes),
        details=dict(trial.result.details),
    )


def _manifest(folder: Path, parts: BundleParts) -> Manifest:
    prepared, artefact = parts.prepared, parts.trial.artefact
    graph, data = prepared.graph_for(parts.profile), prepared.data
    return Manifest(
        target=parts.profile.name,
        backend=parts.profile.device.backend,
        model=ModelRecord(
            name=parts.plan.config.model.name or prepared.model.name,
            author=parts.plan.config.model.author,
            license=parts.plan.config.model.license,
            version=parts.plan.config.model.version,
            kind=str(prepared.model.kind),
            sha256=prepared.model.sha256,
            graph_sha256=graph.sha256,
            opset=next(item.version for item in graph.model.opset_import if item.domain in ("", "ai.onnx")),
            parameters=graph.parameters,
            macs=graph.macs,
        ),
        data=DataRecord(
            calibration_sha256=_digest(data.calibration),
            calibration_samples=len(data.calibration) if data.calibration else 0,
            evaluation_sha256=_digest(data.evaluation),
            evaluation_samples=len(data.evaluation),
            held_back=data.held_back,
            data_free=data.data_free,
        ),
        profile=parts.profile.model_dump(mode="json", by_alias=True, exclude_none=True),
        artefact=ArtefactRecord(
            candidate=artefact.candidate,
            scheme=artefact.scheme,
            main=f"{ARTEFACT}/{artefact.main.as_posix()}",
            inputs=[_port(port) for port in artefact.contract.inputs],
            outputs=[_port(port) for port in artefact.contract.outputs],
            labels=list(parts.plan.labels),
            preprocessing={
                name: item.model_dump(mode="json", exclude_none=True)
                for name, item in parts.plan.config.preprocessing.items()
            },
            details={
                **artefact.details,
                "emulation": str(artefact.emulation or ""),
                "calibration_method": parts.calibration_method,
            },
        ),
        candidates=list(parts.candidates),
        tools={name: metadata.version(name) for name in _TOOLS},
        options=dict(parts.plan.options[parts.profile.name]),
        states=dict(parts.prepared.states.pairs) if parts.trial.loop else {},
        unstable=dict(artefact.unstable),
        files=hash_tree(folder, exclude=UNHASHED),
        executables=settle_modes(folder),
    )


def _port(port: PortSpec) -> PortRecord:
    fields = asdict(port)
    return PortRecord(**{**fields, "shape": list(port.shape), "to_layout": list(port.to_layout)})


def _digest(data: Dataset | None) -> str:
    return data.digest if data is not None else ""


def _samples_run(trial: Trial) -> int:
    outputs: Mapping[str, Any] = trial.result.outputs
    return max((len(value) for value in outputs.values()), default=0)
