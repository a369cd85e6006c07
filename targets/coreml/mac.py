"""Runs a package on a Mac over a transport: compile with `xcrun coremlcompiler`, then one Swift script.

The script (``run_on_mac.swift``) needs nothing but Xcode's command-line tools; it predicts under CPU_ONLY,
CPU_AND_NE and ALL, times each, and asks ``MLComputePlan`` where every operation would run.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import uuid
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.errors import MissingToolError, ToolFailedError
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.interfaces import Artefact, RunJob, RunResult
from edgedeploy.targets.coreml.feeds import feed
from edgedeploy.targets.transports import Completed, Transport, open_transport
from edgedeploy.tensors import PortSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNITS = ("CPU_ONLY", "CPU_AND_NE", "ALL")
SCRIPT = "run_on_mac.swift"
XCRUN = "EDGEDEPLOY_REMOTE_XCRUN"
"""Environment variable naming another xcrun on the Mac, where it has several Xcodes."""

WARMUP, REPETITIONS = 5, 50
MAX_SAMPLES = 64
COMPILE_TIMEOUT_S, RUN_TIMEOUT_S, CLEAN_TIMEOUT_S = 300.0, 1800.0, 60.0
_INSTALL = (
    "On the Mac: install Xcode, then `xcode-select --switch /Applications/Xcode.app` (coremlcompiler is part of it)."
)


def script() -> str:
    """The Swift script, for the bundle too."""
    return files("edgedeploy.targets.coreml").joinpath(f"{SCRIPT}.j2").read_text(encoding="utf-8")


def run_on_mac(artefact: Artefact, job: RunJob) -> RunResult:
    """Copy, compile, predict under every compute unit, and read back.

    Raises:
        MissingToolError: the machine has no Xcode tools.
        ToolFailedError: the transport, the compiler or the script failed, or its results do not fit.
    """
    transport = open_transport(job.device)
    samples = list(job.samples.take(MAX_SAMPLES))
    folder = job.work_dir / "mac"
    _stage(artefact, samples, folder, measure=job.measure)
    remote = f"edgedeploy-coreml-{uuid.uuid4().hex[:12]}"
    job.progress.note(f"Running on {transport.describe()}")
    back = job.work_dir / "mac-results"
    back.mkdir(parents=True, exist_ok=True)
    try:
        transport.push(folder, remote)
        package = f"{remote}/{artefact.main.name}"
        _xcrun(transport, ["coremlcompiler", "compile", package, remote], COMPILE_TIMEOUT_S, "Compiling the package")
        _xcrun(transport, ["swift", f"{remote}/{SCRIPT}", remote], RUN_TIMEOUT_S, "Running the model")
        transport.pull(f"{remote}/results.json", back / "results.json")
        transport.pull(f"{remote}/outputs", back / "outputs")
    finally:
        # The Mac is left as it was; where that fails too, the first error is the one to show.
        with contextlib.suppress(ToolFailedError):
            transport.run(["rm", "-rf", remote], CLEAN_TIMEOUT_S)
    return _read(artefact, back, len(samples), transport.describe())


def _xcrun(transport: Transport, arguments: Sequence[str], timeout_s: float, what: str) -> Completed:
    done = transport.run([os.environ.get(XCRUN, "xcrun"), *arguments], timeout_s)
    missing = done.returncode == 127 or "unable to find utility" in done.stderr
    if missing:
        raise MissingToolError(f"xcrun {arguments[0]}", install=_INSTALL, found=done.stderr.strip()[:300])
    if done.returncode != 0:
        raise ToolFailedError(
            f"{what} on {transport.describe()} failed with code {done.returncode}.",
            found=(done.stderr or done.stdout).strip()[-600:],
            remedy="See that the Mac's system is not older than the package's deployment target.",
        )
    return done


def _stage(artefact: Artefact, samples: Sequence[Any], folder: Path, *, measure: bool) -> None:
    """Everything the Mac needs, in one folder."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    shutil.copytree(artefact.path, folder / artefact.main.name)
    (folder / SCRIPT).write_text(script(), encoding="utf-8")
    image = artefact.details.get("image")
    labels = artefact.details.get("labels")
    job = {
        "model": f"{artefact.main.stem}.mlmodelc",
        "inputs": [_input_port(port, image) for port in artefact.contract.inputs],
        "outputs": [
            {
                "name": port.name,
                "dtype": "dictionary" if labels else port.dtype,
                "shape": _sizes(port),
                "labels": labels,
            }
            for port in artefact.contract.outputs
        ],
        "samples": len(samples),
        "warmup": WARMUP if measure else 0,
        "repetitions": REPETITIONS if measure else 0,
    }
    (folder / "job.json").write_text(json.dumps(job, indent=1))
    for number, sample in enumerate(samples):
        target = folder / "inputs" / str(number)
        target.mkdir(parents=True)
        for port in artefact.contract.inputs:
            value = feed(artefact.contract, artefact.details, sample)[port.name]
            data = np.ascontiguousarray(value).tobytes()
            if image is not None and image["input"] == port.source_name:
                data = _pixel_bytes(value, image["color"])
            (target / f"{port.name}.bin").write_bytes(data)


def _input_port(port: PortSpec, image: Any) -> dict[str, Any]:
    is_image = image is not None and image["input"] == port.source_name
    kind = f"image-{'GRAYSCALE' if image['color'] == 'GRAYSCALE' else 'RGB'}" if is_image else port.dtype
    return {"name": port.name, "dtype": kind, "shape": _sizes(port), "labels": None}


def _sizes(port: PortSpec) -> list[int]:
    return [size if isinstance(size, int) else 1 for size in port.shape]


def _pixel_bytes(value: NDArray[Any], color: str) -> bytes:
    """(1, C, H, W) pixels as rows of one byte (grey) or of B, G, R, A, the order of a macOS pixel buffer."""
    pixels = value[0].astype(np.uint8)
    if color == "GRAYSCALE":
        return bytes(pixels[0].tobytes())
    blue_first = pixels[::-1] if color == "RGB" else pixels
    alpha = np.full((1, *pixels.shape[1:]), 255, np.uint8)
    packed: bytes = np.concatenate([blue_first, alpha]).transpose(1, 2, 0).tobytes()
    return packed


def _read(artefact: Artefact, back: Path, samples: int, where: str) -> RunResult:
    try:
        report = json.loads((back / "results.json").read_text())
        units = {name: report["units"][name] for name in UNITS}
        outputs = {name: _outputs(artefact, back / "outputs" / name, samples) for name in UNITS}
        times = sorted(float(value) for value in units["ALL"]["latency_ms"])
        load_ms = float(units["ALL"]["load_ms"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ToolFailedError(
            f"The results from {where} are incomplete.", found=repr(error)[:300], remedy="Run it again."
        ) from error
    figures = [Figure("load_ms", load_ms, Evidence.DEVICE, how=f"{where}, compute units ALL")]
    if times:
        quantiles = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
        figures.append(
            Figure(
                "latency_ms",
                statistics.median(times),
                Evidence.DEVICE,
                how=f"p50 of {len(times)} predictions on {where}, compute units ALL",
                statistics=tuple((name, times[min(int(q * len(times)), len(times) - 1)]) for name, q in quantiles),
            )
        )
    differences = {
        unit: max(float(np.abs(outputs[unit][name] - outputs["CPU_ONLY"][name]).max()) for name in outputs[unit])
        for unit in UNITS[1:]
    }
    details = {
        "machine": report.get("machine", ""),
        "system": report.get("system", ""),
        "largest_difference_from_cpu": differences,
        "units": {
            name: {
                "load_ms": unit["load_ms"],
                "latency_ms_p50": statistics.median(unit["latency_ms"]) if unit["latency_ms"] else None,
                "placement": _counts(unit.get("placement") or {}),
            }
            for name, unit in units.items()
        },
    }
    note = f"Outputs, times and placement come from {where} ({details['system']}), compute units ALL."
    return RunResult(outputs["ALL"], Evidence.DEVICE, tuple(figures), (note,), details)


def _outputs(artefact: Artefact, folder: Path, samples: int) -> dict[str, NDArray[Any]]:
    gathered = {}
    for port in artefact.contract.outputs:
        dtype = np.int32 if port.dtype == "int32" else np.float32
        rows = [np.fromfile(folder / str(number) / f"{port.name}.bin", dtype) for number in range(samples)]
        gathered[port.source_name] = np.stack([row.reshape(_sizes(port)) for row in rows])
    return gathered


def _counts(placement: dict[str, str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for device in placement.values():
        counts[device] = counts.get(device, 0) + 1
    return dict(sorted(counts.items()))
