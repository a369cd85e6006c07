"""How close a stand-in comes to exact integers, for every ONNX Runtime scheme, beside what this host's kernels give.

    python benchmarks/executor_exactness.py
    qemu-x86_64 -cpu Haswell python benchmarks/executor_exactness.py      # the same on a CPU without VNNI

Nets whose operands lie at the ends of their ranges (tests/support/saturating_nets.py), one line a net and scheme:
SQNR in dB and smallest cosine against exact integer arithmetic (tests/support/exact_integers.py) of
  host      the file as it is, by the host's kernels (what a device of the host's kind would give)
  stand-in  the copy that the runner executes where the host only stands in for the target
  option    the file as it is with onnxruntime's session.x64quantprecision
  Q/DQ      the file as written, every optimization off: how layers are ranked and other backends' graphs emulated
and `codes`, the share of output values that differ from exact integers in the stand-in and in Q/DQ.
`inf` means equal in every bit.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy._core._multiarray_umath import __cpu_features__ as cpu_features

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import saturating_nets as nets
from exact_integers import exact_outputs

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.graph.as_written import open_as_written
from edgedeploy.interfaces import Artefact, RunJob
from edgedeploy.targets.onnxruntime import probe, worker
from edgedeploy.targets.onnxruntime.job import Samples, WorkerJob

SCHEMES = (
    *(
        (net, profile, "static-qdq")
        for net in ("convolutions", "elementwise", "linear", "wide")
        for profile in nets.PROFILES
    ),
    *(("linear", profile, "dynamic-int8") for profile in nets.PROFILES),
    ("linear", "x86-avx512vnni", "weight-only-int8"),
    ("linear", "x86-avx512vnni", "weight-only-int4"),
)
Outputs = Mapping[str, np.ndarray]


def main() -> None:
    """Print the table."""
    print(_isa())
    print(
        f"{'net':<13}{'target':<16}{'candidate':<18}{'host':>14}{'stand-in':>14}{'option':>14}{'Q/DQ':>14}{'codes':>16}"
    )
    with tempfile.TemporaryDirectory() as work:
        for number, (net, profile, candidate) in enumerate(SCHEMES):
            folder = Path(work) / str(number)
            graph = getattr(nets, net)()
            artefact = nets.artefact(graph, profile, candidate, folder / "artefact")
            samples = ArrayDataset(nets.inputs(graph, nets.COMPARED))
            model = onnx.load(artefact.path)
            right = _stacked([exact_outputs(model, sample) for sample in samples])
            job = RunJob(load_profile(profile), samples, folder, measure=False)
            host, stand_in, option = (
                _executed(artefact, job, **how)
                for how in ({}, {"stands_in": True}, {"session": {"session.x64quantprecision": "1"}})
            )
            session = open_as_written(artefact.path, threads=1)
            names = list(right)
            written = _stacked([dict(zip(names, session.run(names, sample), strict=True)) for sample in samples])
            columns = [_closeness(right, found) for found in (host, stand_in, option, written)]
            codes = " ".join(f"{_different(right, found):.2%}" for found in (stand_in, written))
            print(
                f"{net:<13}{profile:<16}{candidate:<18}" + "".join(f"{item:>14}" for item in columns) + f"{codes:>16}"
            )


def _isa() -> str:
    has = [name for name in ("AVX2", "AVX512F", "AVX512_ICL", "AVX512_SPR", "ASIMDDP") if cpu_features.get(name)]
    import onnxruntime

    inputs = probe.feeds()
    session = onnxruntime.InferenceSession(probe.probe(signed=False).SerializeToString())
    right = probe.expected(inputs)
    found = dict(zip(right, session.run(list(right), inputs), strict=True))
    wrong = [name for name in right if not np.array_equal(found[name], right[name])]
    sums = "saturate: " + ", ".join(wrong) if wrong else "are exact"
    return f"CPUID: {', '.join(has)}; onnxruntime {onnxruntime.__version__}; sums of 8-bit products {sums}"


def _executed(
    artefact: Artefact, job: RunJob, *, stands_in: bool = False, session: Mapping[str, str] | None = None
) -> Outputs | None:
    """Outputs of the runner's own worker in this process's kind of CPU; ``None`` where ONNX Runtime fails."""
    work = WorkerJob.write(artefact, job, Samples(), stands_in=stands_in)
    path = work.folder / "job.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"session": told["session"] | dict(session or {})}))
    if worker.main(path):
        return None
    return {name: np.array(array) for name, array in work.outputs(work.result()["outputs"]).items()}


def _stacked(samples: list[Outputs]) -> Outputs:
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def _closeness(right: Outputs, found: Outputs | None) -> str:
    """The worst output's SQNR and cosine."""
    if found is None:
        return "fails"
    worst, cosine = math.inf, 1.0
    for name, array in right.items():
        want, got = array.astype(np.float64), found[name].astype(np.float64)
        noise = np.square(got - want).sum()
        worst = min(worst, 10 * math.log10(np.square(want).sum() / noise) if noise else math.inf)
        cosine = min(cosine, float((want * got).sum() / np.sqrt(np.square(want).sum() * np.square(got).sum())))
    return f"{worst:.1f} {cosine:.4f}"


def _different(right: Outputs, found: Outputs) -> float:
    """The share of values that are off by more than float32 rounding."""
    total = sum(array.size for array in right.values())
    return sum(int((np.abs(found[n] - a) > 1e-5 * np.abs(a).max()).sum()) for n, a in right.items()) / total


if __name__ == "__main__":
    main()
