"""A process that ends with the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
#: Says in a worker's environment which process that is, so that what it starts can tell whether it still lives.
STARTER = "EDGEDEPLOY_STARTER"


def die_with(parent: int) -> None:
    """Have the kernel kill this process when ``parent``, which started it, is gone (Linux; elsewhere nothing)."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it went before the kernel was told
        os.kill(os.getpid(), signal.SIGKILL)


def die_with_starter() -> None:
    """End with the worker that started this process, or with whoever did."""
    die_with(int(os.environ.get(STARTER, os.getppid())))
