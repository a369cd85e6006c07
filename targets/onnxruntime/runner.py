"""`OnnxRuntimeRunner`: runs a saved artefact in a fresh process, on this host or on a device behind ssh."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from edgedeploy.device_profiles.machine import Machine, this_machine
from edgedeploy.errors import InputError, MissingToolError, ToolFailedError
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.interfaces import Artefact, RunJob, RunResult
from edgedeploy.targets.onnxruntime import worker
from edgedeploy.targets.onnxruntime.evidence import Standing, standing
from edgedeploy.targets.onnxruntime.job import Samples, WorkerJob
from edgedeploy.targets.onnxruntime.placement import placement
from edgedeploy.targets.transports import Completed, Transport, open_transport
from edgedeploy.targets.transports.transport import last_lines

#: Seconds after which a worker counts as hung.
WORKER_TIMEOUT_S = 1800.0
#: Below this share of CPU time in wall time, other processes kept the worker waiting.
BUSY = 0.85
#: The interpreter on a device behind ssh; it needs numpy and onnxruntime.
REMOTE_PYTHON = "EDGEDEPLOY_REMOTE_PYTHON"


class OnnxRuntimeRunner:
    """Runs ONNX files on the CPU provider; evidence follows from the CPUID of the machine that ran them."""

    def __init__(self) -> None:
        self._samples = Samples()

    def run(self, artefact: Artefact, job: RunJob) -> RunResult:
        """Run every sample, and measure where the machine is the device or of its kind.

        Raises:
            InputError: ``job.device`` is no local or ssh address, or is another machine than the profile's.
            MissingToolError: numpy or onnxruntime is missing on the device, or ssh here.
            ToolFailedError: the worker crashed, ONNX Runtime refused the model, or the device can't be reached.
        """
        if job.device and job.device != "local" and not job.device.startswith("ssh:"):
            raise InputError(
                "An ONNX Runtime target is reached locally or over ssh.",
                found=repr(job.device),
                remedy="Give --device local or --device ssh:USER@HOST.",
            )
        transport = open_transport(job.device or "local")
        stands_in = not job.device and standing(job.profile, this_machine(), "").numerics is Evidence.EXECUTOR
        prepared = WorkerJob.write(artefact, job, self._samples, stands_in=stands_in)
        if job.device.startswith("ssh:"):
            _run_remotely(transport, prepared)
        else:
            _check(_work(transport, [sys.executable, "-P"], str(prepared.folder)), transport)
        result = prepared.result()
        machine = Machine.from_facts(result["machine"])
        stand = standing(job.profile, machine, job.device)
        ports = {port.name: port.source_name for port in artefact.contract.outputs}
        outputs = {ports.get(name, name): array for name, array in prepared.outputs(result["outputs"]).items()}
        details: dict[str, Any] = {
            "machine": {"arch": machine.arch, "cpu": machine.cpu, "board": machine.board, "cores": machine.cores},
            "integer_path": machine.integer_path.value,
            "versions": {key: result[key] for key in ("onnxruntime", "numpy", "python")},
            "threads": result["threads"],
        }
        notes = [stand.why] if stand.why else []
        if "wrong_in_probe" in result:
            notes.append(_exactness(result["wrong_in_probe"], prepared, job))
            details["integers"] = {"products": "exact", "int8_weights_run_as_uint8": prepared.moved_weights}
        if job.measure:
            placed = placement(result["nodes"])
            details["placement"] = placed.details()
            if placed.warning and stand.numerics is not Evidence.EXECUTOR:  # elsewhere other kernels may run
                notes.append(placed.warning)
        wanted = job.profile.hardware.threads or job.profile.hardware.cores or 1
        if result["threads"] < wanted and stand.times is not Evidence.NONE:
            notes.append(f"measured with {result['threads']} thread(s), the profile has {wanted}")
        figures = _figures(result, stand) if job.measure else ()
        if job.measure and stand.times is not Evidence.NONE:
            details["latency"] = result["latency"]
            had = result["latency"]["cpu_share"]
            if had < BUSY:
                notes.append(
                    f"the machine was busy: the worker had a CPU for {had:.0%} of the time, so its times are too long; "
                    "measure again on an idle machine"
                )
        return RunResult(outputs, stand.numerics, figures, tuple(notes), details)


def _exactness(wrong: list[str], prepared: WorkerJob, job: RunJob) -> str:
    """The sentence for the report; an error where this machine's integer kernels are no stand-in."""
    name = job.profile.name
    if wrong:
        raise ToolFailedError(
            f"ONNX Runtime does not multiply 8-bit integers exactly on this machine, so it cannot stand in for {name}.",
            found="; ".join(wrong),
            remedy=f"Run the artefact on a {name} with --device, or on another machine.",
        )
    how = ""
    if prepared.moved_weights:
        how = f": its {prepared.moved_weights} int8 weights were run as uint8, whose products are summed in 32 bits"
    return f"integers were multiplied exactly, as on a {name}, whatever this CPU's own kernels do{how}"


def _run_remotely(transport: Transport, job: WorkerJob) -> None:
    python = os.environ.get(REMOTE_PYTHON, "python3")
    remote = f"/tmp/edgedeploy-{uuid.uuid4().hex}"
    made = transport.run(["mkdir", "-m", "700", remote], timeout_s=60)
    if made.returncode:
        raise ToolFailedError(f"No folder can be made on {transport.describe()}.", found=last_lines(made.stderr))
    folder = f"{remote}/{job.folder.name}"
    try:
        transport.push(job.folder, folder)
        _check(_work(transport, [python], folder), transport)
        for name in ("result.json", "outputs"):
            transport.pull(f"{folder}/{name}", job.folder / name)
    finally:
        with suppress(ToolFailedError):  # a lost connection has been reported already
            transport.run(["rm", "-rf", remote], timeout_s=60)


def _work(transport: Transport, python: list[str], folder: str) -> Completed:
    # -P, where it is known: no folder of this process may shadow the worker's own imports.
    return transport.run([*python, f"{folder}/worker.py", f"{folder}/job.json"], timeout_s=WORKER_TIMEOUT_S)


def _check(done: Completed, transport: Transport) -> None:
    """Turn the worker's exit code into a sentence."""
    said = last_lines(done.stderr)
    code = done.returncode
    if code == 0:
        return
    if code == worker.MISSING_PACKAGE:
        raise MissingToolError(
            f"onnxruntime on {transport.describe()}",
            found=said,
            install=f"Install it there (pip install onnxruntime numpy), or name its python in {REMOTE_PYTHON}.",
        )
    if code == worker.REFUSED:
        raise ToolFailedError(f"ONNX Runtime on {transport.describe()} refused the artefact.", found=said)
    number = -code if code < 0 else code - 128
    if number in {item.value for item in signal.Signals}:
        name = signal.Signals(number).name
        raise ToolFailedError(
            f"The ONNX Runtime worker on {transport.describe()} was ended by {name}.",
            found=said or "it said nothing",
            remedy="SIGKILL mostly means that memory ran out; SIGILL and SIGSEGV are crashes inside ONNX Runtime: "
            "try another candidate with --candidate.",
        )
    raise ToolFailedError(
        f"The ONNX Runtime worker on {transport.describe()} failed with exit code {code}.", found=said
    )


def _figures(result: Mapping[str, Any], stand: Standing) -> tuple[Figure, ...]:
    if stand.times is Evidence.NONE:
        return ()
    latency = result["latency"]
    threads = f"{result['threads']} thread(s)"
    figures = [
        Figure(
            "latency_ms",
            latency["p50"],
            stand.times,
            how=f"p50 of {latency['runs']} runs, {threads}",
            statistics=tuple((name, latency[name]) for name in ("p50", "p90", "p99", "mean", "min")),
        ),
        Figure("throughput_per_s", 1e3 / latency["mean"], stand.times, how=f"one inference after another, {threads}"),
        Figure("load_ms", result["load_ms"], stand.times, how="from file to session"),
    ]
    if result["peak_bytes"]:
        base = result["base_bytes"] / 1e6
        figures.append(
            Figure(
                "memory_mb",
                result["peak_bytes"] / 1e6,
                stand.times,
                how=f"peak resident size of the process, {base:.0f} MB of it Python and ONNX Runtime without a model",
            )
        )
    return tuple(figures)
