"""The manifest and the measurements of a bundle, as published schemas.

``manifest.json`` holds what two runs must agree on, byte for byte: what went in, what came out, how it
was made. ``measurements.json`` holds what was seen, each figure with its evidence; device labs append to it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgedeploy.quality.strict_json import dumps

FORMAT = 2


class Record(BaseModel):
    """A JSON object: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class ModelRecord(Record):
    """The source model; author, license and version as deploy.toml says."""

    name: str
    author: str = ""
    license: str = ""
    version: str = ""
    kind: str
    sha256: str
    graph_sha256: str
    opset: int
    parameters: int
    macs: int


class PortRecord(Record):
    """One input or output of the artefact; real = (stored - zero_point) * scale."""

    source_name: str
    name: str
    shape: list[int | str]
    dtype: str
    layout: str = ""
    to_layout: list[int] = []
    scale: float | None = None
    zero_point: int | None = None


class DataRecord(Record):
    """Calibration and evaluation data, by content."""

    calibration_sha256: str
    calibration_samples: int
    evaluation_sha256: str
    evaluation_samples: int
    held_back: bool
    data_free: bool


class CandidateRecord(Record):
    """One candidate and why it was or was not taken."""

    candidate: str
    chosen: bool
    reason: str


class ArtefactRecord(Record):
    """The chosen artefact."""

    candidate: str
    scheme: str
    main: str
    inputs: list[PortRecord]
    outputs: list[PortRecord]
    labels: list[str]
    preprocessing: dict[str, Any]
    details: dict[str, Any]


class Manifest(Record):
    """``manifest.json``.

    ``files`` gives the sha256 of every file but the manifest, measurements and report; ``executables`` names those
    among them that may be executed; ``states`` gives the input that takes an output at the next step, where golden/
    holds a loop as well.
    """

    format: Literal[2] = 2
    target: str
    backend: str
    model: ModelRecord
    data: DataRecord
    profile: dict[str, Any]
    artefact: ArtefactRecord
    candidates: list[CandidateRecord]
    tools: dict[str, str]
    options: dict[str, str]
    unstable: dict[str, str]
    files: dict[str, str]
    executables: list[str]
    states: dict[str, str] = {}


class FigureRecord(Record):
    """One figure with its evidence; ``low`` and ``high`` are the 90 % band of an estimate."""

    name: str
    value: float | None
    evidence: str
    how: str = ""
    low: float | None = None
    high: float | None = None
    statistics: dict[str, float] = {}


class VerdictRecord(Record):
    """One judged budget or quality gate."""

    name: str
    kind: str
    limit: str
    value: float | None
    low: float | None = None
    high: float | None = None
    evidence: str
    outcome: str
    required: bool
    why: str = ""


class Measurement(Record):
    """One run of the artefact somewhere, judged.

    ``previous_sha256`` is the hash of the run before (of its `to_json`), for the first run that of manifest.json, so
    that no run can be changed, removed or moved without a trace; `edgedeploy.bundle.journal` checks it.
    """

    previous_sha256: str = ""
    at: str
    device: str
    evidence: str
    samples: int
    figures: list[FigureRecord]
    comparisons: list[dict[str, Any]]
    verdicts: list[VerdictRecord]
    exit_code: int
    notes: list[str]
    details: dict[str, Any]


class Measurements(Record):
    """``measurements.json``: the build's own run first, later runs appended.

    ``sha256`` is the hash of all the rest (of its `to_json` with an empty ``sha256``): the name of this state of the
    journal, for whoever keeps it elsewhere. ``report_sha256`` is that of report.md, which edgedeploy ``report_by``
    rendered, ``report_before_sha256`` that of the report before the last run was appended.
    """

    format: Literal[2] = 2
    manifest_sha256: str
    report_sha256: str = ""
    report_before_sha256: str = ""
    report_by: str = ""
    sha256: str = ""
    stages_s: dict[str, float]
    peak_memory_mb: float
    confinement: dict[str, Any] = Field(default_factory=dict)
    runs: list[Measurement]


def to_json(record: BaseModel) -> bytes:
    """Serialize with sorted keys; infinities, which JSON lacks, become strings."""
    return (dumps(record.model_dump(mode="json"), sort_keys=True) + "\n").encode()
