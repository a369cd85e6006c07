"""Building, running and measuring on the device: by build.py, or by build.sh where Python lacks TensorRT."""

from __future__ import annotations

import contextlib
import json
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.errors import EdgeDeployError, InputError, MissingToolError, ToolFailedError
from edgedeploy.evidence import Evidence, Figure, unknown
from edgedeploy.exporters.tensorrt.ship import ship
from edgedeploy.interfaces import Artefact, RunJob, RunResult
from edgedeploy.targets.tensorrt import trtexec
from edgedeploy.targets.tensorrt.emulate import feeds
from edgedeploy.targets.transports import Completed, Transport, open_transport

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.calibration.readers.reader import Sample

#: Building tries many kernels; a large model takes the better part of an hour on a small board.
BUILD_TIMEOUT_S = 5400.0
_SAMPLE_BYTES = 256_000_000
#: trtexec loads the engine anew for each sample.
_TRTEXEC_SAMPLES = 16
_WRONG_INPUT, _MISSING, _NOT_FOUND = 2, 4, 127


@dataclass(frozen=True)
class _Place:
    transport: Transport
    folder: str
    python: str

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def run(self, argv: Sequence[str], env: dict[str, str] | None = None) -> Completed:
        return self.transport.run(argv, BUILD_TIMEOUT_S, env)


def run_on_device(artefact: Artefact, job: RunJob) -> RunResult:
    """Copy the artefact to the device, build it there, run the samples and measure.

    Raises:
        MissingToolError: neither TensorRT's Python package nor trtexec works there.
        InputError: the device's TensorRT does not take the model, or the device is another than the target.
        ToolFailedError: the transport, the build or the run failed.
    """
    job.work_dir.mkdir(parents=True, exist_ok=True)
    transport = open_transport(job.device)
    local = job.device == "local"
    folder = str(job.work_dir / "device") if local else f"/tmp/edgedeploy-{uuid.uuid4().hex}"
    place = _Place(transport, folder, sys.executable if local else "python3")
    try:
        transport.push(ship(artefact.folder, job.work_dir / "ship"), place.path("artefact"))
        result = _with_python(artefact, job, place)
        if isinstance(result, MissingToolError):
            result = _with_trtexec(artefact, job, place, result)
    finally:
        # A connection that is lost by now neither hides why nor takes the result along.
        with contextlib.suppress(EdgeDeployError):
            transport.run(["rm", "-rf", folder], 60.0)
    _same_device(result, job)
    return result


def _with_python(artefact: Artefact, job: RunJob, place: _Place) -> RunResult | MissingToolError:
    samples = _prefix(job, None)
    inputs = job.work_dir / "samples.npz"
    arrays: dict[str, Any] = {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}
    np.savez(inputs, **arrays)
    place.transport.push(inputs, place.path("samples.npz"))
    argv = [place.python, place.path("artefact/build.py"), "--samples", place.path("samples.npz")]
    argv += ["--outputs", place.path("outputs.npz"), "--report", place.path("report.json")]
    argv += ["--out", place.path("built"), *([] if job.measure else ["--no-timing"])]
    done = place.run(argv)
    if done.returncode in (_MISSING, _NOT_FOUND):
        return MissingToolError(
            "TensorRT for Python with a working driver",
            install="Install TensorRT on the device, or its trtexec, and see that nvidia-smi or tegrastats works.",
            found=_tail(done),
        )
    _check(done, place)
    place.transport.pull(place.path("outputs.npz"), job.work_dir / "outputs.npz")
    place.transport.pull(place.path("report.json"), job.work_dir / "report.json")
    report = json.loads((job.work_dir / "report.json").read_text())
    with np.load(job.work_dir / "outputs.npz", allow_pickle=False) as archive:
        outputs = {
            port.source_name: _per_sample(archive[port.name], len(samples)) for port in artefact.contract.outputs
        }
    figures = [Figure("size_mb", report["engine_bytes"] / 1e6, Evidence.DEVICE, how="engine built on the device")]
    if "latency_ms" in report:
        how = f"CUDA events, {report['runs']} runs, copies included"
        figures += _timing(report["latency_ms"], how, report["throughput_per_s"])
        figures.append(_power(report["power_mw"], report["power_source"]))
        figures.append(Figure("load_ms", report["load_ms"], Evidence.DEVICE, how="engine from memory to first run"))
    details = {key: report[key] for key in ("tensorrt_version", "gpu", "compute_capability", "build_s")}
    return RunResult(outputs, Evidence.DEVICE, tuple(figures), details={**details, "built_by": "build.py"})


def _with_trtexec(artefact: Artefact, job: RunJob, place: _Place, without: MissingToolError) -> RunResult:
    if not (artefact.folder / "build.sh").exists():
        raise without
    samples = _prefix(job, _TRTEXEC_SAMPLES)
    folder = _raw_samples(artefact, samples, job.work_dir / "raw")
    place.transport.push(folder, place.path("raw"))
    env = {"SAMPLES": place.path("raw"), "DURATION": "5" if job.measure else "0"}
    done = place.run(["sh", place.path("artefact/build.sh"), place.path("built")], env)
    if done.returncode == _MISSING:
        raise MissingToolError("TensorRT", install=without.remedy, found=f"{without.found} | {_tail(done)}")
    _check(done, place)
    built = job.work_dir / "built"
    place.run(["rm", "-f", place.path("built/timing.cache")])
    size = place.run(["wc", "-c", place.path("built/model.engine")]).stdout.split()
    place.run(["rm", "-f", place.path("built/model.engine")])
    place.transport.pull(place.path("built"), built)
    rows = [trtexec.read_outputs(built / f"output_{index}.json", artefact.contract) for index in range(len(samples))]
    outputs = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    log = trtexec.read_log((built / "build.log").read_text(errors="replace"))
    figures = [Figure("size_mb", int(size[0]) / 1e6, Evidence.DEVICE, how="engine built on the device")]
    if job.measure:
        throughput = float(log["throughput_per_s"]) if "throughput_per_s" in log else None
        figures += _timing(trtexec.read_times(built / "times.json"), "trtexec, copies included", throughput)
        stats = built / "tegrastats.log"
        power = trtexec.read_power(stats.read_text(errors="replace")) if stats.exists() else None
        figures.append(_power(power[1] if power else None, f"tegrastats {power[0]}" if power else ""))
    details = {
        "tensorrt_version": trtexec.version((built / "tensorrt_version.txt").read_text().strip()),
        "gpu": log.get("gpu", ""),
        "compute_capability": log.get("compute_capability", ""),
        "built_by": "trtexec",
    }
    notes = (f"{len(samples)} samples were run: trtexec loads the engine for each",)
    return RunResult(outputs, Evidence.DEVICE, tuple(figures), notes, details)


def _raw_samples(artefact: Artefact, samples: Sequence[Sample], folder: Path) -> Path:
    for index, sample in enumerate(samples):
        (folder / str(index)).mkdir(parents=True)
        for number, value in enumerate(feeds(artefact.contract, sample).values()):
            value.tofile(folder / str(index) / f"{number}.bin")
    spec = ",".join(f"{port.name}:@/{number}.bin" for number, port in enumerate(artefact.contract.inputs))
    (folder / "inputs.txt").write_text(spec)
    return folder


def _prefix(job: RunJob, limit: int | None) -> list[Sample]:
    samples: list[Sample] = []
    size = 0
    for sample in job.samples:
        size += sum(value.nbytes for value in sample.values())
        if samples and (size > _SAMPLE_BYTES or len(samples) == limit):
            break
        samples.append(sample)
    return samples


def _timing(latency: dict[str, float], how: str, throughput: float | None) -> list[Figure]:
    figures = [Figure("latency_ms", latency["p50"], Evidence.DEVICE, how=how, statistics=tuple(latency.items()))]
    if throughput is not None:
        figures.append(Figure("throughput_per_s", throughput, Evidence.DEVICE, how="queue never empty, batch 1"))
    return figures


def _power(value: float | None, source: str) -> Figure:
    if value is None:
        return unknown("power_mw", "the device has no power sensor that NVML or tegrastats reads")
    return Figure("power_mw", value, Evidence.DEVICE, how=f"{source}, mean while inferring")


def _same_device(result: RunResult, job: RunJob) -> None:
    found, wanted = result.details.get("compute_capability", ""), job.profile.hardware.compute_capability
    if found and wanted and found != wanted:
        raise InputError(
            f"The device is not a {job.profile.name}.",
            found=f"{result.details.get('gpu', 'GPU')} of compute capability {found}, the profile says {wanted}",
            remedy="Name the target that this device is.",
        )


def _check(done: Completed, place: _Place) -> None:
    if done.returncode == 0:
        return
    kind: type[EdgeDeployError] = InputError if done.returncode == _WRONG_INPUT else ToolFailedError
    raise kind(f"TensorRT failed on {place.transport.describe()}.", found=_tail(done))


def _tail(done: Completed) -> str:
    return (done.stderr.strip() or done.stdout.strip())[-1500:]


def _per_sample(value: NDArray[Any], count: int) -> NDArray[Any]:
    return value.reshape((count, len(value) // count, *value.shape[1:]))
