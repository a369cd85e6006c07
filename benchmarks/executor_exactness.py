"""How close a stand-in comes to exact integers, for every ONNX Runtime scheme, beside what a CPU's own kernels give.

    python benchmarks/executor_exactness.py                   # by this machine's CPU
    python benchmarks/executor_exactness.py --cpu Haswell     # by one without VNNI, through qemu-x86_64 (qemu-user)

Nets whose operands lie at the ends of their ranges (tests/support/saturating_nets.py), one line a net and scheme:
SQNR in dB and cosine of the worst output against exact integer arithmetic (tests/support/exact_integers.py), of
  own       the file as it is, by the CPU's own kernels (what a device with this CPU would give)
  stand-in  the copy that the runner executes where a machine only stands in for the target
  option    the file as it is with onnxruntime's session.x64quantprecision
  Q/DQ      the file as written, every optimization off: how layers are ranked and other backends' graphs emulated
and `off`, the share of output values of the stand-in and of Q/DQ that differ by more than float32 rounding.
`inf` means equal in every bit.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgedeploy.graph.as_written import open_as_written
from edgedeploy.targets.onnxruntime import probe, worker

if TYPE_CHECKING:
    from edgedeploy.targets.onnxruntime.job import WorkerJob

Outputs = Mapping[str, np.ndarray]
OPTION = {"session.x64quantprecision": "1"}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cpu", help="a CPU model of qemu-x86_64")
    parser.add_argument("--execute", type=Path, nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.execute:
        execute(given.execute)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), ["qemu-x86_64", "-cpu", given.cpu] if given.cpu else [])


def execute(folders: list[Path]) -> None:
    """The child's part, which imports little: run prepared folders, and say what this CPU is."""
    print(_cpu())
    for folder in folders:
        if folder.name != "written":
            worker.main(folder / "job.json")
            continue
        job = json.loads((folder / "job.json").read_text())
        session = open_as_written(folder / "model.onnx", threads=1)
        arrays = {name: np.load(folder / path) for name, path in job["inputs"].items()}
        names = [output.name for output in session.get_outputs()]
        count = len(next(iter(arrays.values())))
        runs = [session.run(names, {name: array[i] for name, array in arrays.items()}) for i in range(count)]
        (folder / "outputs").mkdir()
        for number in range(len(names)):
            np.save(folder / "outputs" / f"{number}.npy", np.stack([run[number] for run in runs]))
        (folder / "result.json").write_text(json.dumps({"outputs": names}))


def _cpu() -> str:
    import onnxruntime
    from numpy._core._multiarray_umath import __cpu_features__ as features

    has = [name for name in ("AVX2", "AVX512F", "AVX512_ICL", "AVX512_SPR", "ASIMDDP") if features.get(name)]
    inputs = probe.feeds()
    right = probe.expected(inputs)
    session = onnxruntime.InferenceSession(probe.probe(signed=False).SerializeToString())
    found = dict(zip(right, session.run(list(right), inputs), strict=True))
    wrong = [name for name in right if not np.array_equal(found[name], right[name])]
    sums = f"saturate ({', '.join(wrong)})" if wrong else "are exact"
    return f"CPU with {', '.join(has)}; onnxruntime {onnxruntime.__version__}; its sums of 8-bit products {sums}"


def compare(work: Path, prefix: list[str]) -> None:
    """Prepare every run here, execute all in one child, print the lines."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    import onnx
    import saturating_nets as nets
    from exact_integers import exact_outputs

    from edgedeploy.calibration.dataset import ArrayDataset
    from edgedeploy.device_profiles.loader import load_profile
    from edgedeploy.interfaces import RunJob
    from edgedeploy.targets.onnxruntime.job import Samples, WorkerJob

    schemes = [
        *((net, profile, "static-qdq") for net in nets.STATIC for profile in nets.PROFILES),
        *(("linear", profile, "dynamic-int8") for profile in nets.PROFILES),
        ("linear", "x86-avx512vnni", "weight-only-int8"),
        ("linear", "x86-avx512vnni", "weight-only-int4"),
    ]
    right: list[Outputs] = []
    runs: list[dict[str, WorkerJob]] = []
    for number, (net, profile, candidate) in enumerate(schemes):
        graph = getattr(nets, net)()
        artefact = nets.artefact(graph, profile, candidate, work / f"{number}")
        samples = ArrayDataset(nets.inputs(graph, nets.COMPARED))
        model = onnx.load(artefact.path)
        right.append(_stacked([exact_outputs(model, sample) for sample in samples]))
        runs.append({})
        for column in ("own", "stand-in", "option", "written"):
            job = RunJob(load_profile(profile), samples, work / f"{number}-runs", measure=False)
            made = WorkerJob.write(artefact, job, Samples(), stands_in=column == "stand-in")
            folder = made.folder.rename(work / f"{number}-runs" / column)
            told = json.loads((folder / "job.json").read_text()) | {"threads": 1}
            told["session"] |= OPTION if column == "option" else {}
            (folder / "job.json").write_text(json.dumps(told))
            runs[-1][column] = WorkerJob(folder)
    folders = [str(run.folder) for columns in runs for run in columns.values()]
    child = [*prefix, sys.executable, __file__, "--execute", *folders]
    print(
        subprocess.run(child, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout, end=""
    )
    heads = ("own", "stand-in", "option", "Q/DQ")
    print(f"{'net':<13}{'target':<16}{'candidate':<18}" + "".join(f"{head:>14}" for head in heads) + f"{'off':>16}")
    for (net, profile, candidate), want, columns in zip(schemes, right, runs, strict=True):
        found = {column: _outputs(run) for column, run in columns.items()}
        off = " ".join(f"{_off(want, found[column]):.2%}" for column in ("stand-in", "written"))
        cells = "".join(f"{_closeness(want, item):>14}" for item in found.values())
        print(f"{net:<13}{profile:<16}{candidate:<18}{cells}{off:>16}")


def _outputs(run: WorkerJob) -> Outputs | None:
    """``None`` where ONNX Runtime failed."""
    if not (run.folder / "result.json").is_file():
        return None
    return run.outputs(run.result()["outputs"])


def _stacked(samples: list[Outputs]) -> Outputs:
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def _closeness(right: Outputs, found: Outputs | None) -> str:
    """The worst output's SQNR in dB and cosine."""
    if found is None:
        return "fails"
    worst, cosine = math.inf, 1.0
    for name, array in right.items():
        want, got = array.astype(np.float64), found[name].astype(np.float64)
        noise = np.square(got - want).sum()
        worst = min(worst, 10 * math.log10(np.square(want).sum() / noise) if noise else math.inf)
        cosine = min(cosine, float((want * got).sum() / np.sqrt(np.square(want).sum() * np.square(got).sum())))
    return f"{worst:.1f} {cosine:.4f}"


def _off(right: Outputs, found: Outputs | None) -> float:
    """The share of values that are off by more than float32 rounding."""
    assert found is not None
    total = sum(array.size for array in right.values())
    return sum(int((np.abs(found[n] - a) > 1e-5 * np.abs(a).max()).sum()) for n, a in right.items()) / total


if __name__ == "__main__":
    main()
