"""Entropy calibration of ResNet-50 at 224²: peak memory and CPU time beside onnxruntime's and ModelOpt's.

    python benchmarks/calibration_peers.py [--photos DIR] [--modelopt-python PATH] [--images 40 100 400] [--rounds 3]

ModelOpt replaces onnxruntime by a build of its own, so it needs an environment of its own: pip install torch
"nvidia-modelopt[onnx]", then --modelopt-python ENV/bin/python. Without it ModelOpt is listed as not measured.

Everyone gets the same captured graph and the same photos and writes a Q/DQ model with entropy ranges. Each run is a
process of its own on one core; times are its CPU time from start to end, imports included; peaks are its VmHWM.
The network has random weights and batch-norm statistics estimated on photos: cost does not depend on the weights.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

INPUT = "x"  # as pytorchcv names it
PEAK_GIB = 0.75
RATIO = 0.6
REFERENCE = {"onnxruntime": 40, "modelopt": 100}


def build(photos: str, count: str, folder: str) -> None:
    """Capture the network and prepare the photos, for all the others to read."""
    import numpy as np
    import onnx
    import torch
    from pytorchcv.models.resnet import resnet50

    from edgedeploy.calibration.dataset import open_dataset
    from edgedeploy.calibration.preprocessing import Preprocessing
    from edgedeploy.graph.capture import capture
    from edgedeploy.model.load import load_model
    from edgedeploy.tensors import TensorSpec

    preparation = Preprocessing(resize=256, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    data = open_dataset(photos, [TensorSpec(INPUT, (1, 3, 224, 224), "float32")], preparation).take(int(count))
    np.savez(Path(folder) / "photos.npz", **{INPUT: np.concatenate([sample[INPUT] for sample in data])})
    torch.manual_seed(0)
    network = resnet50()
    with torch.no_grad():
        for batch in data.take(32).batches(16):
            network(torch.from_numpy(batch[INPUT]))
    example = (torch.zeros(1, 3, 224, 224),)
    torch.export.save(torch.export.export(network.eval(), example), Path(folder) / "resnet50.pt2")
    graph = capture(load_model(Path(folder) / "resnet50.pt2"))
    onnx.save(graph.model, Path(folder) / "resnet50.onnx")


def ours(folder: str, count: str) -> None:
    import onnx

    from edgedeploy.calibration.dataset import open_dataset
    from edgedeploy.calibration.options import CalibrationOptions
    from edgedeploy.calibration.quantizer import quantize
    from edgedeploy.calibration.schemes import ONNXRUNTIME_X86
    from edgedeploy.calibration.session import Calibration
    from edgedeploy.graph.graph import Graph

    graph = Graph(onnx.load(Path(folder) / "resnet50.onnx"))
    data = open_dataset(Path(folder) / "photos.npz", graph.inputs).take(int(count))
    calibration = Calibration(graph, data, CalibrationOptions(method="entropy"))
    onnx.save(quantize(graph, calibration.table, ONNXRUNTIME_X86), Path(folder) / "ours.onnx")
    assert "torch" not in sys.modules


def onnxruntime(folder: str, count: str) -> None:
    import numpy as np
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter(np.load(Path(folder) / "photos.npz")[INPUT][: int(count)])

        def get_next(self) -> dict | None:
            row = next(self.rows, None)
            return None if row is None else {INPUT: row[None]}

    quantize_static(
        Path(folder) / "resnet50.onnx", Path(folder) / "ort.onnx", Reader(), QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.Entropy,
    )  # fmt: skip


def modelopt(folder: str, count: str) -> None:
    import numpy as np
    from modelopt.onnx.quantization import quantize

    photos = np.load(Path(folder) / "photos.npz")[INPUT][: int(count)]
    quantize(
        str(Path(folder) / "resnet50.onnx"), "int8", {INPUT: photos}, "entropy",
        calibration_eps=["cpu"], high_precision_dtype="fp32", output_path=str(Path(folder) / "modelopt.onnx"),
    )  # fmt: skip


def identity(folder: str, count: str) -> None:
    """Calibrate on the photos in order, and shuffled in batches of 5 and of 8: the tables must be the same bytes."""
    import numpy as np
    import onnx

    from edgedeploy.calibration.dataset import Dataset, open_dataset
    from edgedeploy.calibration.readers.generator import GeneratorReader
    from edgedeploy.calibration.session import calibrate_to_file
    from edgedeploy.graph.graph import Graph

    graph = Graph(onnx.load(Path(folder) / "resnet50.onnx"))
    data = open_dataset(Path(folder) / "photos.npz", graph.inputs).take(int(count))
    tables = [data]
    for size in (5, 8):
        shuffled = data.select(np.random.default_rng(size).permutation(len(data)).tolist())
        reader = GeneratorReader(lambda shuffled=shuffled, size=size: shuffled.batches(size), graph.inputs, "shuffled")
        tables.append(Dataset(reader, tuple(range(len(reader)))))
    contents = set()
    for samples in tables:
        calibrate_to_file(graph, samples, Path(folder) / "table.npz")
        contents.add((Path(folder) / "table.npz").read_bytes())
    if len(contents) != 1:
        raise SystemExit(f"{len(contents)} different tables from the same photos")


ROLES = {role.__name__: role for role in (build, ours, onnxruntime, modelopt, identity)}


def child(role: str, arguments: list[str]) -> None:
    """Run one role and say what it took."""
    ROLES[role](*arguments)
    used = resource.getrusage(resource.RUSAGE_SELF)
    below = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime + below.ru_utime + below.ru_stime
    status = Path("/proc/self/status").read_text()
    peak_kib = int(status.split("VmHWM:")[1].split()[0])
    print("\nRESULT " + json.dumps({"cpu_s": cpu, "peak_gib": peak_kib / 2**20}))


def run(python: str, role: str, *arguments: str, cores: int = 1) -> dict[str, float] | None:
    """Run a role in a process of its own, on one core; ``None`` and its last words where it fails."""
    allowed = set(sorted(os.sched_getaffinity(0))[:cores])
    environment = {**os.environ, "OMP_NUM_THREADS": str(cores)}
    started = time.monotonic()
    result = subprocess.run(
        [python, __file__, "--child", role, *arguments], capture_output=True, text=True, env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed), check=False,
    )  # fmt: skip
    wall = time.monotonic() - started
    if result.returncode or "RESULT " not in result.stdout:
        last = (result.stderr.strip().splitlines() or ["killed"])[-1]
        print(f"  {role} {arguments[-1]} failed with {result.returncode}: {last[:160]}")
        return None
    return {**json.loads(result.stdout.rsplit("RESULT ", 1)[1]), "wall_s": wall}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, default=Path("../shared/data/imagenet400"))
    parser.add_argument("--modelopt-python", default="")
    parser.add_argument("--images", type=int, nargs="+", default=[40, 100, 400])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not options.photos.is_dir():
        print(f"not measured: no photos at {options.photos}")
        return
    with tempfile.TemporaryDirectory() as folder:
        if run(sys.executable, "build", str(options.photos), str(max(options.images)), folder, cores=2) is None:
            sys.exit(1)
        same = run(sys.executable, "identity", folder, "16")
        print(f"shuffled, and in batches of 5 and 8: {'identical tables' if same else 'DIFFERENT tables'}", flush=True)
        jobs = [("ours", sys.executable, count) for count in options.images]
        jobs.append(("onnxruntime", sys.executable, REFERENCE["onnxruntime"]))
        if options.modelopt_python:
            jobs.append(("modelopt", options.modelopt_python, REFERENCE["modelopt"]))
        results: dict[tuple[str, int], list[dict[str, float]]] = {}
        for done in range(1, options.rounds + 1):
            for role, python, count in jobs:
                measured = run(python, role, folder, str(count))
                if measured:
                    results.setdefault((role, count), []).append(measured)
                    print(
                        f"  {role} {count}: {measured['cpu_s']:.1f} CPU s, {measured['peak_gib']:.2f} GiB", flush=True
                    )
            report(results, done)  # after every round: a run that is cut short has medians too


def report(results: dict[tuple[str, int], list[dict[str, float]]], rounds: int) -> None:
    """Print medians and the ratios."""

    def median(role: str, count: int, what: str) -> float | None:
        values = [item[what] for item in results.get((role, count), [])]
        return statistics.median(values) if values else None

    print(f"\nResNet-50, 224², entropy, ranges and Q/DQ model; medians of {rounds} round(s), one core")
    print(f"{'':14} {'images':>6} {'CPU s':>8} {'peak GiB':>9}")
    for role, count in results:
        print(f"{role:14} {count:6} {median(role, count, 'cpu_s'):8.1f} {median(role, count, 'peak_gib'):9.2f}")
    peaks = [median(role, count, "peak_gib") for role, count in results if role == "ours"]
    if peaks:
        print(f"ours, largest peak: {max(peaks):.2f} GiB (wanted: at most {PEAK_GIB}), smallest {min(peaks):.2f}")
    for peer, count in REFERENCE.items():
        mine, theirs = median("ours", count, "cpu_s"), median(peer, count, "cpu_s")
        if mine is None or theirs is None:
            print(f"CPU time against {peer} at {count} images: not measured")
        else:
            print(f"CPU time against {peer} at {count} images: {mine / theirs:.2f}x (wanted: at most {RATIO})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
    else:
        main()
