"""Starts the worker: a fork where that is safe, a fresh interpreter where it is not."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings

from edgedeploy.sandbox.limits import Limits
from edgedeploy.sandbox.worker import Job, serve


def launch(job: Job, limits: Limits, descriptor: int) -> int:
    """Start a worker that reports through ``descriptor`` and return its process id; it leads a session of its own."""
    return _fork(job, limits, descriptor) if may_fork() else _spawn(job, limits, descriptor)


def may_fork() -> bool:
    """True where a forked child can go on: OpenMP's threads do not survive a fork, and a pool of one has none.

    A command forks (it has not loaded torch yet); a notebook that computed with torch gets a fresh interpreter.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return False
    torch = sys.modules.get("torch")
    return torch is None or torch.get_num_threads() == 1


def _fork(job: Job, limits: Limits, descriptor: int) -> int:
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads that only wait, a test runner's for one
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        code = serve(job, limits, descriptor, parent)
    finally:
        os._exit(code)


def _spawn(job: Job, limits: Limits, descriptor: int) -> int:
    packed = pickle.dumps((job, limits, descriptor, os.getpid()))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "edgedeploy.sandbox"],
        stdin=subprocess.PIPE,
        pass_fds=(descriptor,),
        start_new_session=True,
    )
    assert process.stdin is not None
    try:
        with process.stdin as stream:
            pickle.dump((sys.path, packed), stream)
    except BrokenPipeError:
        pass  # it ended already; how is seen from outside
    process.returncode = 0  # waited for by its id, not through this object
    return process.pid


def end(pid: int, *, at_once: bool) -> None:
    """Ask the worker's session to end, or end it."""
    import contextlib

    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL if at_once else signal.SIGTERM)
