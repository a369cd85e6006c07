"""What a backend is given and what it gives back: the contract between the pipeline and every backend.

The pipeline drives both halves: it asks the exporter for candidates, runs each through the runner,
judges it and chooses. An exporter never runs what it made, and a runner never judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from edgedeploy.evidence import Evidence, Figure
from edgedeploy.precision import Precision
from edgedeploy.progress import NoProgress, Progress
from edgedeploy.tensors import Contract

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgedeploy.calibration.dataset import Dataset
    from edgedeploy.calibration.session import Calibration
    from edgedeploy.device_profiles.schema import DeviceProfile
    from edgedeploy.graph.graph import Graph
    from edgedeploy.model.loaded import LoadedModel

Json = Any
"""A value that ``json.dumps`` takes."""


class Selection(StrEnum):
    """How the pipeline chooses among an exporter's candidates."""

    FIRST_PASSING = "first_passing"
    """Take the first that passes its quality gates; later ones are cures and are made only on demand."""

    FASTEST = "fastest"
    """Make all, take the fastest that passes quality and size; within 10 % the exporter's order decides."""


@dataclass(frozen=True)
class Artefact:
    """One exported candidate.

    Attributes:
        candidate: its name among the exporter's candidates ("static-qdq", "a16w8").
        folder: where its files lie; nothing else is in it.
        main: the file or folder, relative to ``folder``, that the runner loads and the device needs.
        contract: names, shapes, dtypes, layout and scales at its boundary.
        scheme: the quantization scheme's name, or "float32" / "float16".
        figures: what is known without running it; always ``size_mb``.
        details: backend facts for the manifest (routes, placements, tool versions, what was left float).
        emulation: a Q/DQ or float ONNX file, relative to ``folder``, with the same numerics, where there is one.
        unstable: bytes that differ between two identical runs, by file: why.
        data_free: made without any calibration data.
        precision: the arithmetic it does; without it the cost model says nothing of the artefact.
    """

    candidate: str
    folder: Path
    main: Path
    contract: Contract
    scheme: str
    figures: tuple[Figure, ...] = ()
    details: Mapping[str, Json] = field(default_factory=dict)
    emulation: Path | None = None
    unstable: Mapping[str, str] = field(default_factory=dict)
    data_free: bool = False
    precision: Precision | None = None

    @property
    def path(self) -> Path:
        """Absolute path of ``main``."""
        return self.folder / self.main


@dataclass(frozen=True)
class Rejection:
    """Why the pipeline did not take a candidate; what an exporter may read before it makes the next."""

    candidate: str
    reason: str
    failed_gates: tuple[str, ...] = ()


@dataclass
class ExportContext:
    """Everything an exporter may use.

    Attributes:
        model: the loaded source; gives the torch program again for backends that re-export.
        graph: the canonical FP32 graph.
        profile: the target device.
        calibration: data and, computed on first use and shared by all targets, the calibration table.
        work_dir: an empty folder of this target's own.
        options: backend options from the command line, checked by the exporter (unknown ones are errors).
        pinned: make only this candidate (``--candidate`` or deploy.lock).
        rejections: what the pipeline found wrong with the candidates made so far.
        labels: class names of the judged output, where deploy.toml gives them; for integration code.
        class_outputs: class axis, counted with the samples axis, of the outputs that are judged as class scores.
        states: input by output: what is fed back from one step to the next, in captured names.
        preprocessing: what the model's preprocessing does, one line of text by input name; for integration code.
    """

    model: LoadedModel
    graph: Graph
    profile: DeviceProfile
    calibration: Calibration
    work_dir: Path
    options: Mapping[str, str] = field(default_factory=dict)
    pinned: str | None = None
    progress: Progress = field(default_factory=NoProgress)
    rejections: list[Rejection] = field(default_factory=list)
    labels: tuple[str, ...] = ()
    preprocessing: Mapping[str, str] = field(default_factory=dict)
    class_outputs: Mapping[str, int] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)


class Exporter(Protocol):
    """Makes artefacts; one class a backend."""

    selection: Selection

    def candidates(self, context: ExportContext) -> Iterator[Artefact]:
        """Yield candidates, preferred first, each in its own folder under ``context.work_dir``.

        Raises:
            UnsupportedOpError: before any work, where the backend cannot take an op of the graph.
            MissingToolError: where a vendor package is not installed.
            InputError: for an option, shape or type the backend cannot take.
        """
        ...


@runtime_checkable
class Finisher(Protocol):
    """An exporter whose artefact is completed by what its run showed: a runner itself never changes what ships."""

    def finish(self, artefact: Artefact, profile: DeviceProfile, samples: Dataset, result: RunResult) -> None:
        """Complete the chosen artefact's files, once, before they are bundled.

        Args:
            samples: those that ``result`` was obtained with, in the same order.
        """
        ...


@dataclass(frozen=True)
class RunJob:
    """What a runner is asked to do with an artefact.

    Attributes:
        samples: evaluation samples in the captured graph's names, shapes and dtypes; never calibration data.
        device: "" for this host's simulator or executor, else "local", "adb:SERIAL", "ssh:USER@HOST", "serial:PORT".
        measure: also measure latency, memory and load time where the runner can.
        states: input by output (captured names). Where any are named, the samples are one sequence, in order: after the
            first step each of these inputs takes what the artefact's own output gave a step before. Only outputs are
            wanted then. A runner that cannot loop returns no outputs, evidence ``none`` and a note that says why.
        may_build: the artefact was made by this very run, so that its sources may be compiled and run, in ``work_dir``;
            never so for a bundle, which anybody may have made.
    """

    profile: DeviceProfile
    samples: Dataset
    work_dir: Path
    device: str = ""
    measure: bool = True
    states: Mapping[str, str] = field(default_factory=dict)
    may_build: bool = False
    progress: Progress = field(default_factory=NoProgress)


@dataclass(frozen=True)
class RunResult:
    """What a runner saw.

    Attributes:
        outputs: by captured output name, float32 (or the integer dtype of an integer output), dequantized and in
            the captured layout, stacked: shape (samples run, *output shape) with the output's own batch axis of 1 kept,
            so (500, 1, 10) for 500 samples of an output (1, 10); may be memory-mapped.
        evidence: how the outputs were obtained.
        figures: measured quantities, each with its own evidence.
        notes: sentences for the report (what was not exercised, what surprised).
        details: runner facts for measurements.json (placement, op counts, tool versions).
    """

    outputs: Mapping[str, NDArray[np.generic]]
    evidence: Evidence
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()
    details: Mapping[str, Json] = field(default_factory=dict)


def cannot_loop(where: str) -> RunResult:
    """What a runner gives for a job with states where it cannot feed outputs back."""
    why = f"the state was not run in the loop: {where} runs each sample on its own"
    return RunResult({}, Evidence.NONE, notes=(why,))


class Runner(Protocol):
    """Runs artefacts where their numerics can be trusted; one class a backend."""

    def run(self, artefact: Artefact, job: RunJob) -> RunResult:
        """Run the saved artefact over a prefix of ``job.samples``, as one sequence where ``job.states`` names states.

        Raises:
            MissingToolError: where the verifier is not installed (the pipeline then judges ``unverified``).
            ToolFailedError: where the tool, the transport or the device failed.
        """
        ...
