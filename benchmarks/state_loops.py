"""SQNR of streaming nets, one step at a time and in the loop, and of a detector's boxes and scores, on each backend.

    python benchmarks/state_loops.py [TARGET | TARGET=CANDIDATE …]

The nets have fixed random weights (`tests/support/streams.py`), the detector's head is a 1×1 convolution whose boxes
reach 320 and whose scores stay below 0.1. SQNR is centred: the error against the output's own spread, in dB.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from edgedeploy.backends import backend
from edgedeploy.calibration.dataset import Dataset, open_dataset
from edgedeploy.calibration.options import CalibrationOptions
from edgedeploy.calibration.session import Calibration
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.graph.capture import capture
from edgedeploy.interfaces import ExportContext, RunJob
from edgedeploy.model.load import load_model
from edgedeploy.states import fed_back, find_states

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import streams

TARGETS = ("x86-avx512vnni", "jetson-orin-nano", "iphone15pro", "snapdragon888", "stm32h743")
#: The quantized candidate of each backend: its first one may be float where the net is small.
CANDIDATES = {"onnxruntime": "static-qdq", "tflite_micro": "int8", "snpe": "a8w8"}


class Detector(torch.nn.Module):
    """Image (1, 3, 16, 16) → boxes and scores (1, 9, 8, 8) in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Conv2d(3, 16, 3, 2, 1)
        self.boxes, self.scores = torch.nn.Conv2d(16, 4, 1), torch.nn.Conv2d(16, 5, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Join both heads as YOLO-like detectors do."""
        features = torch.relu(self.body(image))
        return torch.cat((torch.sigmoid(self.boxes(features)) * 320, torch.sigmoid(self.scores(features) - 4)), 1)


def detector(folder: Path) -> Path:
    """Write the detector with 64 random images to calibrate on and 32 to evaluate on."""
    torch.manual_seed(0)
    torch.export.save(torch.export.export(Detector().eval(), (torch.zeros(1, 3, 16, 16),)), folder / "model.pt2")
    images = np.random.default_rng(0).normal(size=(96, 3, 16, 16)).astype(np.float32)
    np.savez(folder / "model.calib.npz", image=images[:64])
    np.savez(folder / "model.eval.npz", image=images[64:])
    return folder / "model.pt2"


def db(want: np.ndarray, got: np.ndarray) -> float:
    """Centred SQNR."""
    error = np.mean((want.astype(np.float64) - got) ** 2)
    return float(10 * np.log10(np.mean((want - want.mean(0)) ** 2) / max(error, 1e-300)))


def reference(model, samples: Dataset, states: dict[str, str]) -> dict[str, np.ndarray]:
    """The source's outputs, in the loop where there are states: (samples, *output shape)."""
    rows: list[dict[str, np.ndarray]] = []
    for sample in samples:
        rows.append(model.reference(fed_back(sample, rows[-1] if rows else None, states)))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def measure(path: Path, asked: str, folder: Path) -> None:
    """Print one line an output."""
    target, _, candidate = asked.partition("=")
    profile = load_profile(target)
    made = backend(profile.device.backend)
    model = load_model(path)
    graph = capture(model)
    samples = open_dataset(path.with_name("model.eval.npz"), model.inputs)
    calibrated = open_dataset(path.with_name("model.calib.npz"), model.inputs)
    states = dict(find_states(model.inputs, model.outputs, None).pairs)
    calibration = Calibration(graph, calibrated, CalibrationOptions(method="minmax"))
    for name in ("export", "once", "loop"):
        (folder / name).mkdir(parents=True)
    context = ExportContext(
        model,
        graph,
        profile,
        calibration,
        folder / "export",
        pinned=candidate or CANDIDATES.get(profile.device.backend),
        states=states,
    )
    artefact = next(made.load_exporter().candidates(context))
    runner = made.load_runner()
    once = runner.run(artefact, RunJob(profile, samples, folder / "once", measure=False)).outputs
    want = reference(model, samples, {})
    label = f"{target:18s}{path.parent.name:10s}{artefact.candidate:14s}"
    if not states:
        (name,) = once
        count = len(once[name])
        boxes, scores = (db(want[name][:count, 0, part], once[name][:, 0, part]) for part in (slice(4), slice(4, 9)))
        print(f"{label}boxes {boxes:6.1f} dB   scores {scores:6.1f} dB", flush=True)
        return
    loop = runner.run(artefact, RunJob(profile, samples, folder / "loop", measure=False, states=states)).outputs
    around = reference(model, samples, states)
    for name in want:
        one, many = (db(a[name][: len(b[name])], b[name]) for a, b in ((want, once), (around, loop)))
        print(f"{label}{name:10s} one step {one:6.1f} dB   in the loop {many:6.1f} dB", flush=True)


def main() -> None:
    """Every net on every target."""
    for target in sys.argv[1:] or TARGETS:
        with tempfile.TemporaryDirectory() as scratch:
            for kind in ("detector", "cell", "packed", "lstm", "gru"):
                folder = Path(scratch) / kind
                folder.mkdir()
                path = detector(folder) if kind == "detector" else streams.write(folder, kind)
                try:
                    measure(path, target, folder / "work")
                except Exception as error:  # a row that cannot be had is told, and the others are printed
                    print(f"{target:18s}{kind:10s}{type(error).__name__}: {str(error)[:150]}", flush=True)


if __name__ == "__main__":
    main()
