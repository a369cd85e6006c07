"""Inside the limited process: put the limits on, do the job, say how it ended."""

from __future__ import annotations

import faulthandler
import importlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from edgedeploy.errors import EdgeDeployError, InputError
from edgedeploy.exhausted import unexpected
from edgedeploy.sandbox import files, network, watch
from edgedeploy.sandbox.channel import Channel
from edgedeploy.sandbox.limits import Limits, apply
from edgedeploy.sandbox.ties import STARTER, die_with

Work = Callable[[Any, Channel], Any]
"""``work(arguments, channel)`` returns JSON; the channel is also a `Progress`."""


@dataclass(frozen=True)
class Job:
    """What a worker does.

    Attributes:
        function: ``module:name`` of a `Work` of this package.
        arguments: what it is called with; picklable where the worker is a fresh interpreter.
        scratch: an empty folder that the worker may fill (its temporary files go there too).
        own_output: what it prints reaches the user (the job's result, or code that the user named); else it is dropped.
    """

    function: str
    arguments: Any
    scratch: Path
    own_output: bool = False


def serve(job: Job, limits: Limits, descriptor: int, parent: int) -> int:
    """Do the job and report through ``descriptor``; returns the process's exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    die_with(parent)
    os.environ[STARTER] = str(os.getpid())
    _own_folders(job)
    if not job.own_output:
        _drop_output()
    channel = Channel(descriptor, limits, job.scratch)
    try:
        channel.confinement = _confine(job, limits)
        watch.listen(channel.step)
        channel.step("start")
        channel.send(result=_resolve(job.function)(job.arguments, channel))
        return 0
    except EdgeDeployError as error:
        channel.send(error=error.to_json())
    except MemoryError:
        channel.send(error=_too_large(limits).to_json())
    except KeyboardInterrupt:
        channel.send(interrupted=True)
    except BaseException as error:
        channel.send(error=unexpected(error).to_json())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 1


def _confine(job: Job, limits: Limits) -> dict[str, Any]:
    """Put every limit on; returns which of them this kernel enforces."""
    apply(limits)
    told: dict[str, Any] = {
        "memory_bytes": limits.memory_bytes,
        "step_cpu_s": limits.step_cpu_s,
        "files": "not limited",
        "network": "not limited",
    }
    if limits.writable is not None and files.only_writable((job.scratch, *limits.writable)):
        told["files"] = "read-only but for its own folder (Landlock)"
    if not limits.network and network.no_network():
        told["network"] = "none (seccomp)"
    return told


def _too_large(limits: Limits) -> InputError:
    return InputError(
        "The model needs more memory than it may use.",
        found=f"the limit is {(limits.memory_bytes or 0) / 2**30:.1f} GiB",
        remedy="Deploy a smaller model, or on a machine with more memory.",
    )


def _own_folders(job: Job) -> None:
    temporary = job.scratch / "tmp"
    temporary.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = str(temporary)
    tempfile.tempdir = None


def _drop_output() -> None:
    """Libraries write to the terminal whatever a model makes them say."""
    faulthandler.disable()
    sys.stdout.flush()
    sys.stderr.flush()
    nothing = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 (open as long as the process)
    os.dup2(nothing.fileno(), 1)
    os.dup2(nothing.fileno(), 2)
    sys.stdout = sys.stderr = nothing


def _resolve(function: str) -> Work:
    module, _, name = function.partition(":")
    work: Work = getattr(importlib.import_module(module), name)
    return work


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
