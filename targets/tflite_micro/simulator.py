"""The TFLite Micro interpreter of the PyPI package, driven in a subprocess: what it says and how it may die."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.errors import MissingToolError, ToolFailedError
from edgedeploy.targets.tflite_micro.arena import ArenaPeaks, arena_peaks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.tensors import Contract

WORKER = "edgedeploy.targets.tflite_micro.worker"
LARGEST_ARENA_BYTES = 256 << 20
TIMEOUT_S = 1800
_MISSING_OP = re.compile(r"Didn't find op for builtin opcode '(\w+)'")


@dataclass(frozen=True)
class Simulated:
    """What the interpreter gave.

    Attributes:
        outputs: stored codes by output, shape (samples, *stored shape).
        arena_bytes: the smallest arena that works, found by bisection; ``None`` if not asked for.
        recorded_bytes: what its allocator recorded.
        peaks: what each phase takes, reconstructed from the file: why the arena is larger than what was recorded.
        allocations: recorded bytes by purpose ("head": activations and scratch, "tail": persistent), and ``peaks``.
    """

    outputs: tuple[NDArray[Any], ...]
    arena_bytes: int | None = None
    recorded_bytes: int | None = None
    peaks: ArenaPeaks | None = None
    allocations: dict[str, int] | None = None


@dataclass(frozen=True)
class Feedback:
    """The input that takes an output at the next sample, both by their places."""

    output: int
    input: int


@dataclass(frozen=True)
class Loop:
    """What is fed back from sample to sample, and the ports that say how it is stored."""

    contract: Contract
    states: tuple[Feedback, ...]

    def as_json(self) -> list[dict[str, Any]]:
        """For the worker."""
        return [
            {
                "output": item.output,
                "input": item.input,
                "given": asdict(self.contract.outputs[item.output]),
                "taken": asdict(self.contract.inputs[item.input]),
            }
            for item in self.states
        ]


def simulate(
    model: Path,
    inputs: Sequence[NDArray[Any]],
    outputs: int,
    folder: Path,
    *,
    find_arena: bool = True,
    arena_bytes: int = LARGEST_ARENA_BYTES,
    loop: Loop | None = None,
) -> Simulated:
    """Run stored inputs (samples, *stored shape) through TFLite Micro in a subprocess, in order.

    Raises:
        MissingToolError: tflite-micro is not installed.
        ToolFailedError: the interpreter refused the model or was killed by a signal.
    """
    if importlib.util.find_spec("tflite_micro") is None:
        raise MissingToolError("tflite-micro (the reference interpreter)", install="pip install 'edgedeploy[tflm]'")
    folder.mkdir(parents=True, exist_ok=True)
    for index, batch in enumerate(inputs):
        np.save(folder / f"input{index}.npy", batch)
    job = {
        "model": str(model.resolve()),
        "folder": str(folder.resolve()),
        "inputs": len(inputs),
        "outputs": outputs,
        "arena": arena_bytes,
        "find_arena": find_arena,
        "states": loop.as_json() if loop else [],
    }
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", WORKER, str(path)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ToolFailedError(f"TFLite Micro did not finish in {TIMEOUT_S} s.", found=str(model)) from None
    if done.returncode != 0:
        raise _failure(done.returncode, done.stderr, arena_bytes)
    answer = json.loads(done.stdout.splitlines()[-1])
    arrays = tuple(np.load(folder / f"output{index}.npy") for index in range(outputs))
    if not find_arena:
        return Simulated(arrays)
    recorded = answer["allocations"]
    peaks = arena_peaks(model, recorded["head"], recorded["tail"])
    return Simulated(arrays, answer["arena_bytes"], answer["recorded_bytes"], peaks, {**recorded, **peaks.as_dict()})


def _failure(code: int, stderr: str, arena_bytes: int) -> ToolFailedError:
    missing = _MISSING_OP.search(stderr)
    if missing:
        return ToolFailedError(
            f"TFLite Micro has no operator {missing[1]}.",
            found=_last_lines(stderr),
            remedy="The installed tflite-micro is older than the model needs: pip install 'edgedeploy[tflm]'.",
        )
    if code < 0:
        name = signal.Signals(-code).name
        return ToolFailedError(
            f"TFLite Micro was killed by {name} while it ran the model in an arena of {arena_bytes:,} bytes.",
            found=_last_lines(stderr),
            remedy="An arena that is too small does that; give a larger one.",
        )
    return ToolFailedError("TFLite Micro refused the model.", found=_last_lines(stderr))


def _last_lines(text: str, count: int = 6) -> str:
    return " | ".join(line.strip() for line in text.strip().splitlines()[-count:])
