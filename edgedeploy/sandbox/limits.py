"""How much a worker may use, and how the kernel is told."""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass
from pathlib import Path

import psutil

_GIB = 2**30
#: Memory that any model gets: torch, ONNX Runtime and a vendor's compiler take this much for small ones ...
_BASE_BYTES = 8 * _GIB
#: ... and this many times the model's file besides (weights, graph, calibration and export each hold them).
_BYTES_PER_BYTE = 24
#: CPU seconds that one step gets (loading, capturing, one sample) ...
_BASE_SECONDS = 50.0
#: ... and as many more for each MB (1e6 bytes) of the model's file.
_SECONDS_PER_MB = 1.0
#: Vendors' compilers and simulators take long for honest models too: a step that runs them gets this much more.
_TOOL_FACTOR = 40
#: Seconds without a word and without using a CPU after which a step counts as stuck.
_IDLE_SECONDS = 60.0


@dataclass(frozen=True)
class Limits:
    """What a confined worker may use.

    Attributes:
        memory_bytes: private memory of each of its processes (RLIMIT_DATA); ``None``: no limit.
        step_cpu_s: CPU seconds between two signs of life, which are stages and samples (RLIMIT_CPU, moved on at each);
            ``None``: no limit.
        file_bytes: the largest file it may write (RLIMIT_FSIZE).
        idle_s: seconds without CPU use or a word after which it is ended; not applied to vendors' tools and devices.
        writable: folders (and files) it may change; everything else is read-only. ``None``: everything is writable.
        network: it may open sockets (a device behind ssh or adb, or code that the user named).
    """

    memory_bytes: int | None
    step_cpu_s: float | None = _BASE_SECONDS
    file_bytes: int = 64 * _GIB
    idle_s: float = _IDLE_SECONDS
    writable: tuple[Path, ...] | None = ()
    network: bool = False

    def cpu_s(self, *, tool: bool) -> float | None:
        """CPU seconds of a step; one that runs a vendor's compiler or simulator has more."""
        return self.step_cpu_s * _TOOL_FACTOR if self.step_cpu_s is not None and tool else self.step_cpu_s


def limits_for(
    model: Path, *, writable: tuple[Path, ...] | None = (), network: bool = False, step_cpu_s: float | None = None
) -> Limits:
    """Limits that grow with the model's file; never more memory than this machine has.

    Args:
        model: the file (its size counts, with an .onnx file's external data beside it) or a bundle's folder.
        writable, network: see `Limits`.
        step_cpu_s: what the user allows one step, in CPU seconds; by default 50 and one more a MB.
    """
    size = _size(model)
    memory = min(_BASE_BYTES + _BYTES_PER_BYTE * size, int(0.9 * psutil.virtual_memory().total))
    seconds = step_cpu_s if step_cpu_s is not None else _BASE_SECONDS + _SECONDS_PER_MB * size / 1e6
    return Limits(memory, seconds, writable=writable, network=network)


#: For a file that the user vouches for with ``--unsafe-load``.
NO_LIMITS = Limits(None, None, writable=None, network=True)


def _size(model: Path) -> int:
    try:
        if model.is_dir():
            return sum(path.lstat().st_size for path in model.rglob("*") if path.is_file() and not path.is_symlink())
        size = model.stat().st_size
        if model.suffix == ".onnx":
            # External data may have any name; what is called after the graph counts.
            with contextlib.suppress(OSError):
                size += sum(
                    path.stat().st_size
                    for path in model.parent.iterdir()
                    if path.is_file() and path.name.startswith(model.stem) and path != model
                )
        return size
    except (OSError, RecursionError):
        return 0


def apply(limits: Limits) -> None:
    """Bind this process and all it starts; lower limits that stand already are kept."""
    if limits.memory_bytes is None:
        return
    _lower(resource.RLIMIT_DATA, limits.memory_bytes)
    _lower(resource.RLIMIT_FSIZE, limits.file_bytes)
    _lower(resource.RLIMIT_CORE, 0)
    # Where memory runs out nevertheless, this process is the one to go.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def allow_cpu(seconds: float | None) -> None:
    """Let this process use ``seconds`` more CPU time from now on; then the kernel ends it with SIGXCPU."""
    if seconds is None:
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    wanted = int(usage.ru_utime + usage.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _lower(what: int, value: int) -> None:
    soft, _ = resource.getrlimit(what)
    bound = value if soft == resource.RLIM_INFINITY else min(value, soft)
    resource.setrlimit(what, (bound, bound))  # for good: what runs inside cannot raise it again
