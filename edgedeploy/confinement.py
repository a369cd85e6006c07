"""Which limits a command's worker gets, and the short way to do one thing in a worker."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.progress import NoProgress, Progress
from edgedeploy.sandbox.confine import Job, confined
from edgedeploy.sandbox.limits import NO_LIMITS, Limits, limits_for

if TYPE_CHECKING:
    from edgedeploy.prepare import Plan


def runs_own_code(chosen: Plan) -> bool:
    """The user named code to build the model: what it prints is the user's, and it may use files and network."""
    return bool(chosen.request.factory or chosen.config.model.factory)


def limits_of(chosen: Plan, *writable: Path) -> Limits:
    """The limits of a worker that loads a planned model.

    Args:
        chosen: ``--unsafe-load`` takes every limit off; code that the user named, and a device, need files or network.
        writable: what the worker may change besides its own folder.
    """
    request = chosen.request
    if request.unsafe_load:
        return NO_LIMITS
    code = runs_own_code(chosen)
    limits = limits_for(request.model, writable=writable, step_cpu_s=request.step_seconds)
    return replace(limits, writable=None if code else writable, network=code or bool(request.device))


def in_worker(
    function: str, arguments: Any, limits: Limits, progress: Progress | None = None, *, own_output: bool = False
) -> Any:
    """Do one thing in a worker with a scratch folder that is gone afterwards; see `confined`.

    Args:
        function: ``module:name``, called with ``arguments`` and the channel.
        own_output: what it prints is its result.
    """
    with tempfile.TemporaryDirectory(prefix="edgedeploy-") as folder:
        return confined(Job(function, arguments, Path(folder), own_output), limits, progress or NoProgress())
