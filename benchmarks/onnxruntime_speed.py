"""Speed, size and closeness of the ONNX Runtime candidates against FP32 ONNX Runtime, on this machine.

    python benchmarks/onnxruntime_speed.py [--photos FOLDER] [--only efficientnet,resnet50,minilm,bert] [--rounds 15]

Each model is loaded, captured and exported as `deploy` does it for the target `host`. FP32 is the captured graph
under ONNX Runtime's own optimizations. All sessions of a model run interleaved, one thread, batch 1; a ratio is the
median over rounds of paired process CPU times. Targets are those of the project's own issue; a missed one is printed
as MISSED and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import onnxruntime_models
import torch
from torch import nn

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.session import Calibration
from edgedeploy.compare import wilson_interval
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.exporters.onnxruntime.exporter import OnnxRuntimeExporter
from edgedeploy.graph.capture import capture
from edgedeploy.interfaces import ExportContext
from edgedeploy.model.load import load_model

ROOT = Path(__file__).parents[1]
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Goal:
    """What must be reached: speed against FP32, size, and closeness, each checked where it is given."""

    speed: float | None = None
    size_mb: float | None = None
    agreement: float | None = None
    cosine: float | None = None


@dataclass(frozen=True)
class Row:
    """One candidate's figures."""

    candidate: str
    size_mb: float
    speed: float
    cpu_ms: float
    cosine_mean: float
    cosine_min: float
    agreement: float
    samples: int


def measure(module: nn.Module, calibration: Arrays, evaluation: Arrays, rounds: int, runs: int) -> list[Row]:
    """Export every candidate for the target `host` and compare each with FP32; the first row is FP32 itself."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        example = tuple(torch.tensor(array[:1]) for array in calibration.values())
        torch.export.save(torch.export.export(module, example), folder / "model.pt2")
        model = load_model(folder / "model.pt2")
        graph = capture(model)
        names = [spec.name for spec in graph.inputs]
        data = ArrayDataset(dict(zip(names, calibration.values(), strict=True)))
        context = ExportContext(model, graph, load_profile("host"), Calibration(graph, data), folder / "out")
        onnx.save(graph.model, folder / "fp32.onnx")
        paths = {"FP32 ONNX Runtime": folder / "fp32.onnx"}
        for artefact in OnnxRuntimeExporter().candidates(context):
            paths[artefact.candidate] = artefact.path
        sessions = {label: _session(path) for label, path in paths.items()}
        samples = [
            dict(zip(names, (array[i : i + 1] for array in evaluation.values()), strict=True))
            for i in range(len(next(iter(evaluation.values()))))
        ]
        times = _interleaved({label: session.run for label, session in sessions.items()}, samples, rounds, runs)
        outputs = {
            label: np.stack([session.run(None, sample)[0].ravel() for sample in samples])
            for label, session in sessions.items()
        }
        sizes = {label: path.stat().st_size / 1e6 for label, path in paths.items()}
    first = next(iter(times))
    return [
        Row(
            label,
            sizes[label],
            float(np.median(times[first] / times[label])),
            float(np.median(times[label])),
            *_closeness(outputs[first], outputs[label]),
            len(samples),
        )
        for label in times
    ]


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _interleaved(
    runners: Mapping[str, Callable], samples: list[dict[str, np.ndarray]], rounds: int, runs: int
) -> dict[str, np.ndarray]:
    """CPU milliseconds of one inference, (rounds,) each; every round runs every candidate in turn."""
    times: dict[str, list[float]] = {label: [] for label in runners}
    for run in runners.values():
        for sample in samples[:3]:
            run(None, sample)
    for turn in range(rounds):
        for label, run in runners.items():
            begin = time.process_time()
            for index in range(runs):
                run(None, samples[(turn * runs + index) % len(samples)])
            times[label].append((time.process_time() - begin) / runs * 1e3)
    return {label: np.array(values) for label, values in times.items()}


def _closeness(reference: np.ndarray, outputs: np.ndarray) -> tuple[float, float, float]:
    norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(outputs, axis=1)
    cosine = (reference * outputs).sum(1) / norms
    return float(cosine.mean()), float(cosine.min()), float((reference.argmax(1) == outputs.argmax(1)).mean())


def report(title: str, rows: list[Row], goal: Goal, *, classes: bool, others: Mapping[str, Goal] | None = None) -> bool:
    """Print the table and whether the fastest candidate that is close enough reaches the goal."""
    print(f"\n{title} ({rows[0].samples} samples)")
    heads = "".join(f"{head:>9s}" for head in ("MB", "CPU ms", "x FP32", "cosine", "min"))
    print(f"  {'candidate':20s}{heads} {'agreement, 95 %':>24s}")
    for row in rows:
        low, high = wilson_interval(row.agreement * row.samples, row.samples)
        share = f"{row.agreement:.4f} [{low:.4f}, {high:.4f}]" if classes else "-"
        print(
            f"  {row.candidate:20s}{row.size_mb:9.2f}{row.cpu_ms:9.2f}{row.speed:9.2f}{row.cosine_mean:9.4f}"
            f"{row.cosine_min:9.4f} {share:>24s}"
        )
    close = [
        row
        for row in rows[1:]
        if row.agreement >= (goal.agreement or 0)
        and row.cosine_mean >= (goal.cosine if goal.cosine is not None else -1)
    ]
    chosen = max(close, key=lambda row: row.speed)
    reached = _check(chosen, goal, "chosen")
    for candidate, other in (others or {}).items():
        reached &= _check(next(row for row in rows if row.candidate == candidate), other, "with --candidate")
    return reached


def _check(row: Row, goal: Goal, how: str) -> bool:
    checks = [
        ("speed", goal.speed, row.speed, True),
        ("size_mb", goal.size_mb, row.size_mb, False),
        ("agreement", goal.agreement, row.agreement, True),
        ("cosine", goal.cosine, row.cosine_mean, True),
    ]
    every = True
    for name, limit, value, at_least in checks:
        if limit is not None:
            passed = value >= limit if at_least else value <= limit
            every &= passed
            sign = ">=" if at_least else "<="
            print(f"  {how} {row.candidate}: {name} {value:.3f} {sign} {limit:g}  {'ok' if passed else 'MISSED'}")
    return every


def efficientnet(options: argparse.Namespace) -> bool:
    """Trained EfficientNet-Lite0 on real photos: 64 calibrate, the others are judged."""
    import efficientnet_lite0

    files = sorted(options.photos.glob("*.jpg"))
    if len(files) < 364:
        print(f"\nEfficientNet-Lite0: skipped, {options.photos} does not hold the photos (--photos FOLDER)")
        return True
    images = np.stack([efficientnet_lite0.photo(path) for path in files])
    every = np.arange(len(images))
    for_calibration = every % (len(images) // 64) == 0
    rows = measure(
        efficientnet_lite0.build(),
        {"image": images[for_calibration][:64]},
        {"image": np.delete(images, every[for_calibration][:64], axis=0)},
        options.rounds,
        8,
    )
    return report("EfficientNet-Lite0, trained", rows, Goal(1.8, 5.3, agreement=0.98), classes=True)


def resnet50(options: argparse.Namespace) -> bool:
    """ResNet-50's shape with random weights: speed and size only mean something."""
    images = np.random.default_rng(0).normal(size=(12, 3, 224, 224)).astype(np.float32)
    rows = measure(onnxruntime_models.resnet50(), {"image": images[:4]}, {"image": images[4:]}, options.rounds, 3)
    return report("ResNet-50 shape, random weights", rows, Goal(3.0), classes=False)


def minilm(options: argparse.Namespace) -> bool:
    """Trained MiniLM-L6 sentence encoder at 128 tokens."""
    import minilm_encoder

    every = minilm_encoder.tokens(minilm_encoder.sentences(164))
    calibration = {name: array[:16] for name, array in every.items()}
    evaluation = {name: array[64:] for name, array in every.items()}
    rows = measure(minilm_encoder.build(), calibration, evaluation, options.rounds, 6)
    others = {"weight-only-int4": Goal(size_mb=14.5)}
    return report("MiniLM-L6, trained, 128 tokens", rows, Goal(2.0, 23.5, cosine=0.99), classes=False, others=others)


def bert(options: argparse.Namespace) -> bool:
    """BERT-base's shape, random weights, 128 tokens, beside the published reference."""
    ids = np.random.default_rng(0).integers(1000, 30000, size=(8, 128))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    rows = measure(onnxruntime_models.bert_base(), inputs, inputs, options.rounds, 2)
    reached = report("BERT-base shape, random weights, 128 tokens", rows, Goal(), classes=False)
    whole, best = rows[0], max(rows[1:], key=lambda row: row.speed)
    print(
        f"  same model, FP32 to {best.candidate}: {1 - best.size_mb / whole.size_mb:.1%} smaller, {best.speed:.2f}x\n"
        "  published reference, BERT to DistilBERT INT8 (another model): 78.2% smaller, 2.38x"
    )
    return reached


CASES = {"efficientnet": efficientnet, "resnet50": resnet50, "minilm": minilm, "bert": bert}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=ROOT.parent / "shared/data/imagenet400")
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(ROOT / "examples"))
    print(f"onnxruntime {ort.__version__}, one thread, batch 1, process CPU time, {options.rounds} rounds")
    results = [CASES[name](options) for name in options.only.split(",")]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
