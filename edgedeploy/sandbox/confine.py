"""`confined`: do a job in a limited process, pass its progress on, and make a sentence of whatever becomes of it."""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from edgedeploy.errors import EdgeDeployError, InputError, ToolFailedError
from edgedeploy.progress import Progress
from edgedeploy.sandbox.channel import MAX_LINE_BYTES
from edgedeploy.sandbox.launch import end, launch
from edgedeploy.sandbox.limits import Limits
from edgedeploy.sandbox.progress import Bars
from edgedeploy.sandbox.watch import TOOL_STEPS
from edgedeploy.sandbox.worker import Job

__all__ = ["Job", "confined"]

#: Seconds between two looks at a silent worker.
_LOOK_SECONDS = 1.0
#: Seconds that an interrupted worker gets to clean up.
_GRACE_SECONDS = 10.0

_DOING = {
    "start": "starting",
    "load": "loading the model",
    "data": "reading the data",
    "capture": "capturing the model",
    "reference": "running the model for its reference outputs",
    "export": "exporting",
    "run": "running the artefact",
    "bundle": "writing the bundle",
    "measure": "measuring",
    "inspect": "reading the file",
    "scan": "scanning the file",
    "verify": "replaying the golden vectors",
}


def confined(job: Job, limits: Limits, progress: Progress, events: Callable[[Any], None] | None = None) -> Any:
    """Run a job in a limited worker and return its result (JSON).

    Args:
        job: what to do.
        limits: what it may use.
        progress: gets what the worker says.
        events: gets each value that the worker hands over before its end.

    Raises:
        EdgeDeployError: what the job raised, `CrashError` for a defect of ours; or a sentence on how the worker ended
            where a limit or a crash ended it: `InputError` while it was busy with the model, `ToolFailedError` while
            vendors' tools ran.
        KeyboardInterrupt: this process was interrupted; the worker is gone then.
    """
    reading, writing = _pipe()
    try:
        pid = launch(job, limits, writing)
    finally:
        os.close(writing)
    watched = _Watched(pid, limits, progress, events)
    try:
        with os.fdopen(reading, "rb", buffering=0) as stream:
            for message in _messages(stream.fileno(), watched):
                watched.take(message)
        status = watched.wait()
    except BaseException:
        watched.stop()
        raise
    return watched.outcome(status)


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are no standard streams, even where a caller closed those."""
    ends = os.pipe()
    kept = tuple(fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3) for number in ends)
    for number in ends:
        os.close(number)
    return kept[0], kept[1]


def _messages(descriptor: int, watched: _Watched) -> Iterator[Any]:
    """Every document that the worker writes, until it closes its end; looks at the worker while it is silent."""
    pending = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if not selector.select(_LOOK_SECONDS):
                watched.look()
                continue
            chunk = os.read(descriptor, 2**16)
            if not chunk:
                return
            watched.heard()
            pending += chunk
            if len(pending) > MAX_LINE_BYTES:
                raise ToolFailedError("The worker said more than any worker says.", found=f"{len(pending):,} bytes")
            if b"\n" not in chunk:
                continue
            *lines, rest = pending.split(b"\n")
            pending = bytearray(rest)
            for line in lines:
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError):
                    raise ToolFailedError("The worker said something that is no message.") from None


class _Watched:
    """One worker as its parent sees it."""

    def __init__(self, pid: int, limits: Limits, progress: Progress, events: Callable[[Any], None] | None) -> None:
        self._pid, self._limits = pid, limits
        self._bars, self._events = Bars(progress), events
        self._step = "start"
        self._ending: dict[str, Any] = {}
        self._idle_since = time.monotonic()
        self._cpu_s = 0.0
        self._stuck = False

    def take(self, message: Any) -> None:
        """Act on one message; what is unknown or ill-formed is a crash of the worker."""
        match message:
            case {"step": str(name)} if name in _DOING:
                self._step = name
            case {"event": value} if self._events is not None:
                self._events(value)
            case {"note": str()} | {"bar": int()}:
                self._bars.take(message)
            case {"result": _} | {"error": dict()} | {"interrupted": True}:
                self._ending = message
            case _:
                raise ToolFailedError("The worker said something unknown.", found=str(message)[:200])

    def heard(self) -> None:
        """The worker is alive."""
        self._idle_since = time.monotonic()

    def look(self) -> None:
        """End a worker that neither says nor computes anything, where it has no reason to wait."""
        used = _cpu_seconds(self._pid)
        if used > self._cpu_s + 0.01 * _LOOK_SECONDS or self._step in TOOL_STEPS or self._limits.network:
            self._cpu_s = used
            self.heard()
        elif time.monotonic() - self._idle_since > self._limits.idle_s:
            self._stuck = True
            end(self._pid, at_once=True)

    def wait(self) -> int:
        """Wait for the process and return its exit code, negative for a signal."""
        _, status = os.waitpid(self._pid, 0)
        self._bars.close()
        end(self._pid, at_once=True)  # whatever of its session it left running
        return os.waitstatus_to_exitcode(status)

    def stop(self) -> None:
        """Interrupt it, and end it where it does not listen."""
        self._bars.close()
        end(self._pid, at_once=False)
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline:
            if os.waitpid(self._pid, os.WNOHANG)[0]:
                break
            time.sleep(0.05)
        else:
            end(self._pid, at_once=True)
            os.waitpid(self._pid, 0)
        end(self._pid, at_once=True)

    def outcome(self, status: int) -> Any:
        """The result, or the error that stands for how it ended."""
        if "result" in self._ending and status == 0:
            return self._ending["result"]
        if "error" in self._ending:
            raise EdgeDeployError.from_json(self._ending["error"])
        if "interrupted" in self._ending:
            raise KeyboardInterrupt
        raise self._death(status)

    def _death(self, status: int) -> EdgeDeployError:
        tool = self._step in TOOL_STEPS
        kind = ToolFailedError if tool else InputError
        seconds = self._limits.cpu_s(tool=tool) or 0.0
        if self._stuck:
            found = f"for {self._limits.idle_s:.0f} s it neither computed nor said anything"
        elif status == -signal.SIGXCPU:
            found = f"one step took more than {seconds:.0f} s of CPU time"
        elif status == -signal.SIGKILL:
            found = "the worker was killed (SIGKILL): memory most likely ran out"
        elif status < 0:
            found = f"the worker was ended by {_signal_name(-status)}"
        else:
            found = f"the worker ended with code {status} and without a word"
        return kind(
            f"The work did not survive {_DOING[self._step]}; nothing of it was kept.",
            found=found,
            remedy="If the model is honest and large, allow a step more time with --step-seconds; a crash inside "
            "torch, ONNX Runtime or a vendor's tool deserves a report there.",
        )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process and all that it started and that still run."""
    total = 0.0
    try:
        process = psutil.Process(pid)
        for item in (process, *process.children(recursive=True)):
            times = item.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    except psutil.Error:
        pass
    return total
