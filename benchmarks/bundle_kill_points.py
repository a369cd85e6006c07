"""Is there a complete bundle whenever a deploy is killed? SIGKILL before each change that it makes to the file system.

    python benchmarks/bundle_kill_points.py [--work DIR] [--last 60]

A good bundle stands in the output folder. The real command runs over it in a forked child of one warm process. One of
its two processes kills itself just before its n-th change of the file system (a file opened for writing, a folder made,
a rename, an unlink ...): the one that places the bundle at every n, the worker that makes it at each of its --last
changes. After each kill the bundle must be the old one or the new one, whole; then the next run must succeed and leave
nothing else. Prints the counts.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bundle_samples import write_model

from edgedeploy.bundle.read import check_bundle, read_bundle
from edgedeploy.cli import main as deploy
from edgedeploy.errors import EdgeDeployError

CHANGES = {"os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.chmod", "os.truncate", "os.link", "os.symlink"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Counted:
    """Counts the changes below one folder that each process makes, and kills one of them before its n-th."""

    def __init__(self, folder: Path, who: str, stop: int, tally: int) -> None:
        self.below, self.who, self.stop, self.tally = str(folder), who, stop, tally
        self.main = self.process = os.getpid()
        self.count = 0

    def __call__(self, event: str, arguments: tuple) -> None:
        """An audit hook (PEP 578)."""
        if event not in CHANGES and not (event == "open" and arguments[2] is not None and arguments[2] & WRITES):
            return
        # A name relative to an open folder has no path; those are of the clearing up.
        path = arguments[0]
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if text.startswith("/") and not text.startswith(self.below):
            return
        if os.getpid() != self.process:  # the worker is a fork
            self.process, self.count = os.getpid(), 0
        self.count += 1
        me = "placing" if self.process == self.main else "worker"
        if self.stop == 0:
            os.write(self.tally, f"{me}\n".encode())
        elif me == self.who and self.count == self.stop:
            os.kill(os.getpid(), signal.SIGKILL)


def run(arguments: list[str], out: Path, who: str = "", stop: int = -1, tally: int = -1) -> int:
    """Run the command in a child; returns its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        sys.addaudithook(Counted(out, who, stop, tally))
        code = 0
        try:
            deploy(arguments)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def changes(arguments: list[str], out: Path, tally: Path) -> Counter[str]:
    """How many changes each process makes in a run that nothing stops."""
    with tally.open("wb") as file:
        assert run(arguments, out, stop=0, tally=file.fileno()) == 0, "the command itself fails"
    return Counter(tally.read_text().split())


def state(bundle: Path, old: tuple[int, int]) -> str:
    """Which bundle stands there, by its folder; or what is wrong with it."""
    try:
        check_bundle(bundle, *read_bundle(bundle))
    except EdgeDeployError as error:
        return f"broken: {error}"
    status = bundle.stat()
    return "old" if (status.st_dev, status.st_ino) == old else "new"


def main() -> None:
    """Kill at each point and print the counts."""
    line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    line.add_argument("--work", type=Path)
    line.add_argument("--last", type=int, default=60, help="changes of the worker, counted from its end")
    options = line.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="edgedeploy-kill-"))
    model, out = write_model(work / "model"), work / "out"
    arguments = ["-q", "-t", "host", "--candidate", "float32", "-o", str(out), str(model)]
    shutil.rmtree(out, ignore_errors=True)
    assert run(arguments, out) == 0, "the command itself fails"
    made = changes(arguments, out, work / "tally")
    points = [("placing", number + 1) for number in range(made["placing"])]
    points += [("worker", number + 1) for number in range(made["worker"])[-options.last :]]
    print(f"{dict(made)} changes, {len(points)} kill points", flush=True)
    seen: Counter[str] = Counter()
    wrong = 0
    begin = time.monotonic()
    for who, point in points:
        status = (out / "host").stat()
        code = run(arguments, out, who, point)
        found = state(out / "host", (status.st_dev, status.st_ino))
        seen[f"{who}: {found.partition(':')[0]}"] += 1
        # The process that places the bundle outlives its worker: 2 while the model is loaded and captured, 5 later.
        if code not in ((-signal.SIGKILL,) if who == "placing" else (2, 5)) or found not in ("old", "new"):
            wrong += 1
            print(f"{who} {point}: exit {code}, {found}", flush=True)
        if who == "placing" and run(arguments, out) != 0:
            wrong += 1
            print(f"{who} {point}: the next run fails", flush=True)
        if (left := sorted(path.name for path in out.iterdir())) != ["host"]:
            wrong += 1
            print(f"{who} {point}: left {left}", flush=True)
    print(f"{len(points)} kill points: {dict(seen)}, {wrong} wrong, {time.monotonic() - begin:.0f} s")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
