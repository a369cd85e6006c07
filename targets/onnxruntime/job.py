"""The folder that a worker needs: itself, the artefact, the samples and what to do with them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from edgedeploy.device_profiles.machine import IntegerPath, profile_machine
from edgedeploy.errors import InputError, ToolFailedError
from edgedeploy.interfaces import Artefact, RunJob
from edgedeploy.targets.onnxruntime import exact, probe, worker

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.calibration.dataset import Dataset
    from edgedeploy.device_profiles.schema import DeviceProfile

#: How long and how often an artefact is timed: fewest and most runs, in the least and most seconds.
MEASURE_SECONDS = (0.2, 3.0)
MEASURE_RUNS = (30, 500)
WARMUP_RUNS = 5


class Samples:
    """The samples as one .npy an input, read and written once however many candidates run over them."""

    def __init__(self) -> None:
        self._of: Dataset | None = None
        self._files: dict[str, Path] = {}

    def place(self, artefact: Artefact, job: RunJob, folder: Path) -> dict[str, str]:
        """Put the samples into ``folder``; returns the file name by artefact input name."""
        if self._of is not job.samples or not all(path.is_file() for path in self._files.values()):
            self._files = _write_samples(job, folder)
            self._of = job.samples
        placed = {}
        for port in artefact.contract.inputs:
            source = self._files[port.source_name]
            placed[port.name] = source.name
            if source.parent != folder:
                _link(source, folder / source.name)
        return placed


@dataclass(frozen=True)
class WorkerJob:
    """A folder that holds everything the worker needs, itself included.

    Attributes:
        folder: where it is.
        moved_weights: int8 weights that its copy of the artefact holds as uint8.
    """

    folder: Path
    moved_weights: int = 0

    @classmethod
    def write(cls, artefact: Artefact, job: RunJob, samples: Samples, *, stands_in: bool = False) -> WorkerJob:
        """Copy or link everything into a new folder under ``job.work_dir``.

        Args:
            artefact: what to run.
            job: over which samples, for which profile.
            samples: already written ones.
            stands_in: the machine only stands in for the device: run a copy that multiplies exact integers on any
                CPU, and a probe that shows that it does.
        """
        folder = job.work_dir / f"run-{artefact.candidate}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy2(worker.__file__, folder / "worker.py")
        model = _place_exact(artefact.path, folder, job.profile) if stands_in else None
        if model is None:
            _link(artefact.path, folder / "model.onnx")
        inputs = samples.place(artefact, job, folder)
        threads = job.profile.hardware.threads or job.profile.hardware.cores or 1
        (folder / "job.json").write_text(
            json.dumps(
                {
                    "model": "model.onnx",
                    "inputs": inputs,
                    "threads": threads,
                    "measure": job.measure,
                    "seconds": MEASURE_SECONDS,
                    "runs": MEASURE_RUNS,
                    "warmup": WARMUP_RUNS,
                    "states": _states(artefact, job),
                    # On x86 ONNX Runtime turns signed activations into unsigned ones, which ARM builds do not.
                    "probe": None if model is None else model.probe,
                    "session": {"session.qdqisint8allowed": "1"} if profile_machine(job.profile).is_arm else {},
                }
            )
        )
        return cls(folder, moved_weights=0 if model is None else model.moved_weights)

    def result(self) -> dict[str, Any]:
        """Read what the worker found; `ToolFailedError` where it left nothing."""
        path = self.folder / "result.json"
        if not path.is_file():
            raise ToolFailedError("The ONNX Runtime worker ended without a result.")
        result: dict[str, Any] = json.loads(path.read_text())
        return result

    def outputs(self, names: list[str]) -> dict[str, NDArray[np.generic]]:
        """Map the outputs, each (samples, *output shape), by the artefact's output names."""
        return {
            name: np.load(self.folder / "outputs" / f"{number}.npy", mmap_mode="r", allow_pickle=False)
            for number, name in enumerate(names)
        }


@dataclass(frozen=True)
class _Exact:
    """The exact copy's number of moved weights, and the probe's files for the worker, none for a float artefact."""

    moved_weights: int
    probe: dict[str, str] | None


def _place_exact(source: Path, folder: Path, profile: DeviceProfile) -> _Exact | None:
    """Write a copy that multiplies exact integers, and a probe of the same kind; ``None`` where it cannot be read.

    Raises:
        ToolFailedError: the profile's CPU would not give exact integers itself.
    """
    try:
        model = onnx.load(source)
    except (DecodeError, OSError):
        return None  # ONNX Runtime says what is wrong with it
    if not exact.multiplies_integers(model):
        _link(source, folder / "model.onnx")
        return _Exact(0, None)
    largest = exact.largest_signed_weight(model)
    if profile_machine(profile).integer_path is IntegerPath.PAIRWISE and largest > exact.LARGEST_SAFE:
        raise ToolFailedError(
            f"This artefact's sums of products saturate on a {profile.name}, which no other machine shows.",
            found=f"int8 weights up to {largest}; up to {exact.LARGEST_SAFE} they cannot saturate",
            remedy=f"Export it for {profile.name}, or run it there with --device.",
        )
    asked = probe.probe(signed=exact.has_signed_activations(model))
    moved = exact.unsigned_weights(model)
    exact.unsigned_weights(asked)
    onnx.save(model, folder / "model.onnx")
    onnx.save(asked, folder / "probe.onnx")
    inputs = probe.feeds()
    for name, arrays in (("probe-inputs.npz", inputs), ("probe-outputs.npz", probe.expected(inputs))):
        np.savez(folder / name, **arrays)  # type: ignore[arg-type]  # numpy's stub reads the names as options
    return _Exact(moved, {"model": "probe.onnx", "inputs": "probe-inputs.npz", "outputs": "probe-outputs.npz"})


def _states(artefact: Artefact, job: RunJob) -> dict[str, str]:
    """The job's states in the artefact's names."""
    takes = {port.source_name: port.name for port in artefact.contract.inputs}
    gives = {port.source_name: port.name for port in artefact.contract.outputs}
    return {gives[output]: takes[name] for output, name in job.states.items()}


def _write_samples(job: RunJob, folder: Path) -> dict[str, Path]:
    """Stream the samples into memory-mapped files of shape (samples, *input shape), by captured input name."""
    count = len(job.samples)
    arrays: dict[str, NDArray[np.generic]] = {}
    paths: dict[str, Path] = {}
    for index, sample in enumerate(job.progress.track(job.samples, what="Writing samples", total=count)):
        for name, value in sample.items():
            if name not in arrays:
                paths[name] = folder / f"input{len(paths)}.npy"
                arrays[name] = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
                    paths[name], mode="w+", dtype=value.dtype, shape=(count, *value.shape)
                )
            if value.shape != arrays[name].shape[1:]:
                raise InputError(
                    f"Input {name!r} changes its shape between samples.",
                    found=f"{value.shape} at sample {index}, {arrays[name].shape[1:]} before",
                    remedy="Evaluate with samples of one shape.",
                )
            arrays[name][index] = value
    if not arrays:
        raise InputError("There is no sample to run the artefact with.")
    return paths


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
