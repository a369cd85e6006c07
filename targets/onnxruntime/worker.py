"""Runs one ONNX file over samples and measures it: a script of its own, with nothing but numpy and onnxruntime.

    python worker.py JOB.json

It runs in a fresh process, here or alone on a device behind ssh, so it imports nothing of edgedeploy. JOB.json
holds paths relative to its own folder: ``model``, ``inputs`` (name to .npy of shape (samples, *input shape)),
``threads``, ``measure``, ``seconds`` and ``runs`` (how long to measure), ``warmup``, ``states`` (input by output: what
an output gives is fed to that input at the next sample), ``session`` (configuration entries of the ONNX Runtime
session), and ``probe`` (``model``, ``inputs`` and right ``outputs`` of a model that shows whether integers are
multiplied exactly, or null). Beside it the script writes
``result.json`` and ``outputs/N.npy`` of shape (samples, *output shape), one a model output, in their order.
Exit codes: 0 done; 3 a package is missing; 4 ONNX Runtime refused the model or a sample (one line on stderr).
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any

MISSING_PACKAGE = 3
REFUSED = 4
#: Runs of the second, profiled session that tells what each node computes in.
PROFILED_RUNS = 9


def main(job_path: Path) -> int:
    """Run the job; returns the exit code."""
    # By its own folder: a path to it may hold characters that ONNX Runtime does not take from this locale.
    os.chdir(job_path.parent)
    folder = Path()
    job = json.loads((folder / job_path.name).read_text())
    cpus = _pin(job["threads"])
    try:
        import numpy as np
        import onnxruntime as ort
    except ImportError as error:
        print(error, file=sys.stderr)
        return MISSING_PACKAGE
    result: dict[str, Any] = {
        "machine": machine(),
        "onnxruntime": ort.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "threads": len(cpus),
        "cpus": cpus,
    }
    inputs = {name: np.load(folder / path, mmap_mode="r") for name, path in job["inputs"].items()}
    count = min(len(array) for array in inputs.values())

    def sample(index: int) -> dict[str, Any]:
        return {name: np.array(array[index % count]) for name, array in inputs.items()}

    try:
        if job["probe"]:
            result["wrong_in_probe"] = _wrong_in_probe(np, ort, folder, job)
        result["base_bytes"] = _memory_bytes("VmHWM")
        session, result["load_ms"] = _load(ort, folder / job["model"], _options(ort, len(cpus), job["session"]))
        if job["measure"]:
            result["latency"] = _measure(session, sample, job)
            result["peak_bytes"] = _memory_bytes("VmHWM")
        _write_outputs(np, session, sample, count, folder / "outputs", job["states"])
        result["outputs"] = [output.name for output in session.get_outputs()]
        result["samples"] = count
        if job["measure"]:
            del session
            result["nodes"] = _profile(ort, folder, job["model"], _options(ort, len(cpus), job["session"]), sample(0))
    except Exception as error:  # one line for the user; the caller makes it a sentence
        print(f"{type(error).__name__}: {error}".replace("\n", " "), file=sys.stderr)
        return REFUSED
    (folder / "result.json").write_text(json.dumps(result))
    return 0


def machine() -> dict[str, Any]:
    """What this machine is: architecture, CPU model and the features that CPUID or the kernel report."""
    facts: dict[str, Any] = {
        "arch": platform.machine().lower(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "cpu": "",
        "features": [],
        "board": "",
    }
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("flags", "Features"):
                facts["features"] = sorted(value.split())
            elif key.strip() == "model name":
                facts["cpu"] = value.strip()
        board = Path("/proc/device-tree/model")
        facts["board"] = board.read_text().strip("\0\n") if board.exists() else ""
    except OSError:
        pass  # no Linux: the architecture alone is known
    return facts


def _pin(threads: int) -> list[int]:
    """Restrict this process to as many CPUs as the job wants threads, before any pool is made."""
    if not hasattr(os, "sched_setaffinity"):  # no Linux
        return list(range(min(threads, os.cpu_count() or 1)))
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cpus)
    return cpus


def _options(ort: Any, threads: int, entries: dict[str, str]) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    return options


def _load(ort: Any, model: Path, options: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return session, (time.perf_counter() - start) * 1e3


def _wrong_in_probe(np: Any, ort: Any, folder: Path, job: dict[str, Any]) -> list[str]:
    """The probe's outputs that are not exactly right, each with its largest error."""
    probe = job["probe"]
    session, _ = _load(ort, folder / probe["model"], _options(ort, 1, job["session"]))
    inputs, right = np.load(folder / probe["inputs"]), np.load(folder / probe["outputs"])
    found = dict(zip(right.files, session.run(right.files, dict(inputs)), strict=True))
    return [
        f"{name} is off by up to {np.abs(found[name] - right[name]).max():g} of {np.abs(right[name]).max():g}"
        for name in right.files
        if not np.array_equal(found[name], right[name])
    ]


def _goes_on(runs: int, seconds: float, job: dict[str, Any]) -> bool:
    """Enough runs, for no longer than ``seconds`` and no shorter than a scheduler takes to let others in."""
    least, most = job["runs"]
    shortest, longest = job["seconds"]
    return bool(runs < least or (seconds < longest and (runs < most or seconds < shortest)))


def _measure(session: Any, sample: Any, job: dict[str, Any]) -> dict[str, float]:
    for index in range(job["warmup"]):
        session.run(None, sample(index))
    times: list[float] = []
    begin, cpu = time.perf_counter(), time.process_time()
    while _goes_on(len(times), time.perf_counter() - begin, job):
        feeds = sample(len(times))
        start = time.perf_counter()
        session.run(None, feeds)
        times.append((time.perf_counter() - start) * 1e3)
    cpu_share = (time.process_time() - cpu) / (time.perf_counter() - begin)
    ordered = sorted(times)

    def percentile(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return {
        "p50": percentile(0.5),
        "p90": percentile(0.9),
        "p99": percentile(0.99),
        "mean": sum(times) / len(times),
        "min": ordered[0],
        "cpu_share": cpu_share,
        "runs": len(times),
    }


def _write_outputs(np: Any, session: Any, sample: Any, count: int, folder: Path, states: dict[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    files: list[Any] = []
    places = {output.name: number for number, output in enumerate(session.get_outputs())}
    outputs: list[Any] = []
    for index in range(count):
        feeds = sample(index)
        for output, name in states.items() if outputs else ():
            feeds[name] = outputs[places[output]].astype(feeds[name].dtype).reshape(feeds[name].shape)
        outputs = [np.asarray(output) for output in session.run(None, feeds)]
        if not files:
            files = [
                np.lib.format.open_memmap(
                    folder / f"{number}.npy", mode="w+", dtype=output.dtype, shape=(count, *output.shape)
                )
                for number, output in enumerate(outputs)
            ]
        for number, output in enumerate(outputs):
            if output.shape != files[number].shape[1:]:
                raise ValueError(
                    f"output {number} has shape {output.shape} for sample {index}, {files[number].shape[1:]} before"
                )
            files[number][index] = output
    for file in files:
        file.flush()


def _profile(ort: Any, folder: Path, model: str, options: Any, feeds: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a node of the optimized graph: name, op, input types and median microseconds."""
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = ort.InferenceSession(str(folder / model), options, providers=["CPUExecutionProvider"])
    for _ in range(PROFILED_RUNS):
        session.run(None, feeds)
    path = Path(session.end_profiling())
    rows: dict[str, dict[str, Any]] = {}
    for event in json.loads(path.read_text()):
        name = event.get("name", "")
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        args = event["args"]
        row = rows.setdefault(
            name.removesuffix("_kernel_time"),
            {
                "name": name.removesuffix("_kernel_time"),
                "op": args["op_name"],
                "types": sorted({kind for shape in args.get("input_type_shape", []) for kind in shape}),
                "us": [],
            },
        )
        row["us"].append(event["dur"])
    path.unlink()
    return [{**row, "us": statistics.median(row["us"])} for row in rows.values()]


def _memory_bytes(key: str) -> int | None:
    """A field of /proc/self/status in bytes; ``VmHWM`` is the largest resident size this process ever had."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None  # no Linux
    return None


def _die_with_parent() -> None:
    """Linux: have the kernel end this process when the one that started it is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() != int(os.environ.get("EDGEDEPLOY_STARTER", os.getppid())):  # it went before that
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _die_with_parent()
    sys.exit(main(Path(sys.argv[1])))
