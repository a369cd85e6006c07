"""What the limited worker costs: CPU time of a whole deploy with it and without it, interleaved.

    python benchmarks/sandbox_overhead.py [--rounds 5]

Both run the same stages on the digits CNN of examples/, each round in fresh processes; the bare one calls the worker's
own function in the command's process, without a fork, limits, Landlock or seccomp. Prints medians and their ratio.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

BARE = """
import sys
from pathlib import Path
from edgedeploy.bundle.folder import work_folder
from edgedeploy.pipeline import make_bundles
from edgedeploy.prepare import plan
from edgedeploy.progress import NoProgress
from edgedeploy.request import DeployRequest

class Bare(NoProgress):
    confinement = {}
    def __init__(self, scratch): self.scratch = scratch
    def event(self, value): print(value["exit_code"])

request = DeployRequest(Path(sys.argv[1]), ("host",), output=Path(sys.argv[2]))
with work_folder(request.output) as folder:
    (folder / "scratch").mkdir()
    make_bundles((plan(request), folder), Bare(folder / "scratch"))
"""


def cpu_seconds(argv: list[str]) -> float:
    """User and system time of a command and all it started."""
    before = os.times()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    after = os.times()
    if done.returncode not in (0, 1, 3):
        raise SystemExit(done.stderr)
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Print both medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    import digits_cnn

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        digits_cnn.write(folder / "model")
        model = str(folder / "model" / "model.pt")
        times: dict[str, list[float]] = {"limited": [], "bare": []}
        for number in range(rounds):
            stamp = f"{number}-{time.monotonic_ns()}"
            out = str(folder / f"out-{stamp}")
            limited = [sys.executable, "-P", "-m", "edgedeploy", "-t", "host", "-q", "-o", out, model]
            times["limited"].append(cpu_seconds(limited))
            times["bare"].append(cpu_seconds([sys.executable, "-P", "-c", BARE, model, f"{out}-bare"]))
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    for kind, values in times.items():
        print(f"{kind:8} {medians[kind]:.2f} CPU s (median of {len(values)}, {min(values):.2f} to {max(values):.2f})")
    print(f"ratio    {medians['limited'] / medians['bare']:.3f} on {platform.machine()}, {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
