"""The smallest arena of every operator's test model and of given .tflite files, beside what explains it.

    python benchmarks/tflite_arena.py [FILE.tflite ...]

Without files, all one-operator models of the tests. "explained" is the largest of three phases (preparing, planning,
running), reconstructed from the file and the runtime's sources; "smallest" is found by bisection in the real
interpreter, which must give the outputs that it gives in a large arena.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parent.parent / "tests" / "support"
LARGEST_GAP = 16


def test_models(folder: Path) -> Iterator[Path]:
    """Write the model of every operator's test case."""
    sys.path.insert(0, str(TESTS))
    from tflite_cases import all_cases
    from tflite_graphs import quantized

    from edgedeploy.exporters.tflite_micro.writer import write_tflite

    for case in all_cases():
        path = folder / f"{case.name}.tflite"
        path.write_bytes(write_tflite(quantized(case.graph, case.samples())).content)
        yield path


def main() -> int:
    from ai_edge_litert.interpreter import Interpreter

    from edgedeploy.targets.tflite_micro.simulator import simulate

    gaps: Counter[int] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        print(f"{'model':44} recorded smallest explained  phase that takes most")
        for path in map(Path, sys.argv[1:]) if sys.argv[1:] else test_models(Path(scratch)):
            interpreter = Interpreter(str(path))
            inputs = [np.zeros((1, *item["shape"]), item["dtype"]) for item in interpreter.get_input_details()]
            found = simulate(path, inputs, len(interpreter.get_output_details()), Path(scratch) / "run")
            phases = found.peaks.as_dict()
            gap = found.arena_bytes - found.peaks.largest
            gaps[gap] += 1
            largest = max(phases, key=phases.get)
            sizes = (found.recorded_bytes, found.arena_bytes, found.peaks.largest)
            print(f"{path.stem[-44:]:44}{''.join(f'{size:9,}' for size in sizes)}  {largest}", flush=True)
    close = sum(count for gap, count in gaps.items() if abs(gap) <= LARGEST_GAP)
    print(f"{close} of {gaps.total()} within {LARGEST_GAP} bytes; exact: {gaps[0]}")
    return int(close != gaps.total())


if __name__ == "__main__":
    sys.exit(main())
