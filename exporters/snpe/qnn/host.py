"""Runs the worker and turns whatever becomes of it into an answer or one of our errors."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

from edgedeploy.errors import ToolFailedError
from edgedeploy.exporters.snpe.qnn.job import Answer, Job

#: What the worker runs; a test puts another command here to see how a crash is told.
COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "edgedeploy.exporters.snpe.qnn.worker")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TIMESTAMP = re.compile(r"^\S+ \S+ \[[EF]:onnxruntime:[^\]]*\] ")


def run_job(job: Job, work_dir: Path, *, timeout_s: float) -> Answer:
    """Run ``job`` to its end, without caring for its progress; raises what `progress_of` does."""
    steps = progress_of(job, work_dir, timeout_s=timeout_s)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            answer: Answer = end.value
            return answer


def progress_of(job: Job, work_dir: Path, *, timeout_s: float) -> Generator[int, None, Answer]:
    """Run ``job`` in its own process, yielding the index of each sample done; the generator returns the `Answer`.

    Args:
        work_dir: receives ``job.json`` and ``log.txt``.
        timeout_s: limit for creating the session, and again for each sample.

    Raises:
        ToolFailedError: the process crashed, was killed, or was silent for longer than ``timeout_s``.

    """
    work_dir.mkdir(parents=True, exist_ok=True)
    job_path, log_path, result = work_dir / "job.json", work_dir / "log.txt", Path(job.result)
    result.unlink(missing_ok=True)
    job.save(job_path)
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, str(job_path)],
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=work_dir,  # Qualcomm's libraries drop files where they stand
            env=dict(os.environ),
            text=True,
            errors="replace",
        )
        try:
            yield from _samples(process, timeout_s, log_path)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
    if process.returncode or not result.exists():
        raise ToolFailedError(
            f"Qualcomm's compiler or HTP simulator {_ending(process.returncode)}.",
            found=f"the last lines of its log: {_tail(log_path) or 'none'}",
            remedy="If it ran out of memory, close other programs; otherwise report the model to Qualcomm.",
        )
    return Answer.load(result)


def _samples(process: subprocess.Popen[str], timeout_s: float, log_path: Path) -> Iterator[int]:
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            process.kill()
            raise ToolFailedError(
                f"Qualcomm's compiler or HTP simulator gave no sign of life for {timeout_s:.0f} s and was stopped.",
                found=f"the last lines of its log: {_tail(log_path) or 'none'}",
                remedy="Give it more time with the backend option simulator_timeout_s, or use fewer samples.",
            ) from None
        if line is None:
            process.wait()
            return
        if line.startswith("sample "):
            deadline = time.monotonic() + timeout_s
            yield int(line.split()[1])


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    for line in process.stdout or ():
        lines.put(line)
    lines.put(None)


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with code {code} and no answer"


def _tail(log_path: Path, lines: int = 4) -> str:
    text = _COLOUR.sub("", log_path.read_text(errors="replace"))
    return " | ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip())


def errors_in(log_path: Path) -> tuple[str, ...]:
    """Distinct error lines of a worker's log, without colours, times and source positions."""
    text = _COLOUR.sub("", log_path.read_text(errors="replace")) if log_path.exists() else ""
    found = (_TIMESTAMP.sub("", line).strip() for line in text.splitlines() if "[E:onnxruntime" in line)
    return tuple(dict.fromkeys(line for line in found if "power config" not in line))
