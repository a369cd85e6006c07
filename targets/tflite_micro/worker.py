"""Run as a program: the TFLite Micro interpreter over a batch of samples, and the smallest arena it works with.

It is a program of its own because an arena that is too small can end the process with a signal. Every arena is
tried in a forked child. Usage: ``python -m edgedeploy.targets.tflite_micro.worker JOB.json``; the answer is printed
as one JSON line on stdout, outputs go to ``output{n}.npy`` in the job's folder.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgedeploy.exporters.tflite_micro.codes import real, stored
from edgedeploy.sandbox.ties import die_with_starter
from edgedeploy.tensors import PortSpec

ARENA_STEP = 16
_TOTAL = re.compile(r"Arena allocation total (\d+) bytes")
_PART = re.compile(r"\] (?:'(?P<name>[^']+)' used|Arena allocation (?P<side>head|tail)) (?P<size>\d+) bytes")


def main() -> None:
    """Read the job, run it, print the answer."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(job["folder"])
    content = Path(job["model"]).read_bytes()
    inputs = [np.load(folder / f"input{index}.npy") for index in range(job["inputs"])]
    answer: dict[str, Any] = {}
    interpreter = _interpreter(content, job["arena"])
    rows: list[list[Any]] = [[] for _ in range(job["outputs"])]
    for sample in range(len(inputs[0])):
        codes = [batch[sample] for batch in inputs]
        for state in job["states"] if sample else ():
            given, taken = (_port(state[side]) for side in ("given", "taken"))
            codes[state["input"]] = stored(taken, [real(given, rows[state["output"]][-1][None])[0]])[0]
        for index, value in enumerate(codes):
            interpreter.set_input(value, index)
        interpreter.invoke()
        for index, row in enumerate(rows):
            row.append(np.array(interpreter.get_output(index)))
    for index, row in enumerate(rows):
        np.save(folder / f"output{index}.npy", np.stack(row))
    if job["find_arena"]:
        answer["recorded_bytes"], answer["allocations"] = _recorded(interpreter)
        first = Sample([batch[0] for batch in inputs], [row[0] for row in rows])
        answer["arena_bytes"] = smallest_arena(content, first, answer["recorded_bytes"], job["arena"])
    print(json.dumps(answer))


def _port(fields: dict[str, Any]) -> PortSpec:
    return PortSpec(**{**fields, "shape": tuple(fields["shape"]), "to_layout": tuple(fields["to_layout"])})


@dataclass(frozen=True)
class Sample:
    """Inputs of one run and the outputs that a large arena gives."""

    inputs: list[Any]
    outputs: list[Any]


def smallest_arena(content: bytes, sample: Sample, guess: int, largest: int) -> int:
    """The smallest arena, in steps of 16 bytes, in which the model allocates, runs and gives the same outputs."""
    high = -(-guess // ARENA_STEP)
    while not _works(content, sample, high * ARENA_STEP):
        high *= 2
        if high * ARENA_STEP > largest:
            raise RuntimeError(f"no arena up to {largest} bytes works")
    low = 0
    # The recorded total is nearly always the answer: try the step below it first.
    if high > 1 and not _works(content, sample, (high - 1) * ARENA_STEP):
        return high * ARENA_STEP
    while high - low > 1:
        middle = (low + high) // 2
        if _works(content, sample, middle * ARENA_STEP):
            high = middle
        else:
            low = middle
    return high * ARENA_STEP


def _works(content: bytes, sample: Sample, arena: int) -> bool:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        same = False
        try:
            interpreter = _interpreter(content, arena)
            for index, value in enumerate(sample.inputs):
                interpreter.set_input(value, index)
            interpreter.invoke()
            # What preparing keeps may overwrite what it still reads: running to the end proves nothing alone.
            same = all(np.array_equal(interpreter.get_output(i), value) for i, value in enumerate(sample.outputs))
        finally:
            os._exit(0 if same else 1)
    return os.waitpid(child, 0)[1] == 0


def _recorded(interpreter: Any) -> tuple[int, dict[str, int]]:
    """What the interpreter's own allocator recorded; it prints on file descriptor 2."""
    with tempfile.TemporaryFile() as captured:
        saved = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            interpreter.print_allocations()
        finally:
            os.dup2(saved, 2)
            os.close(saved)
        captured.seek(0)
        text = captured.read().decode(errors="replace")
    total = _TOTAL.search(text)
    parts = {match["name"] or match["side"]: int(match["size"]) for match in _PART.finditer(text)}
    if total is None:
        raise RuntimeError(f"the interpreter recorded no allocations: {text!r}")
    return int(total[1]), parts


def _interpreter(content: bytes, arena: int) -> Any:
    from tflite_micro import runtime

    return runtime.Interpreter.from_bytes(content, arena_size=arena)


if __name__ == "__main__":
    die_with_starter()
    main()
