"""Trained models through the Snapdragon backend: HTP simulator against Q/DQ simulation and FP32, sizes, stages.

    python benchmarks/snpe_models.py [--models efficientnet,mobilenetv2,mobilenet,minilm,lstm,gru] [--photos FOLDER]
        [--samples 100] [--peer]

For each model: how many nodes are on the NPU, the DLC's size against the FP32 weights, what the read-back compared, the
agreement of the simulator with our Q/DQ simulation (with n and its 95 % Wilson interval), the share of outputs within
two steps, cosines, and the seconds of each stage. Simulator time is no latency. EfficientNet-Lite0 needs a folder of
ImageNet photos (``--photos``: 64 calibrate, the others are judged) and is skipped without one. ``mobilenetv2`` has the
published width and 2.2 million parameters; ``mobilenet`` is a tiny relative, whose DLC is mostly what every DLC holds
beside weights (names, shapes, 43 bytes for each channel's scale, metadata): both print that rest.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "benchmarks")]
PHOTOS = ROOT.parent / "shared" / "data" / "imagenet400"
CALIBRATION = 64


@dataclass
class Case:
    """A trained model, its calibration and evaluation inputs, and the candidate that the issue asks for."""

    model: nn.Module
    calibration: dict[str, np.ndarray]
    evaluation: dict[str, np.ndarray]
    candidate: str
    seconds: dict[str, float] = field(default_factory=dict)


class Recurrent(nn.Module):
    """One recurrent layer over the rows of a digit, then a classifier."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](8, 48, batch_first=True)
        self.head = nn.Linear(48, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Classify (n, 8, 8) images read row by row."""
        return self.head(self.layer(rows)[0][:, -1])


def recurrent(kind: str, samples: int) -> Case:
    import digits_cnn

    images, labels, test, _ = digits_cnn.data()
    rows, targets = torch.from_numpy(images[:, 0]), torch.from_numpy(labels)
    torch.manual_seed(0)
    model = Recurrent(kind)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        for batch in torch.randperm(len(rows)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(rows[batch]), targets[batch]).backward()
            optimizer.step()
    return Case(model.eval(), {"rows": images[:CALIBRATION, 0]}, {"rows": test[:samples, 0]}, "a8w8")


def efficientnet(photos: Path, samples: int) -> Case | None:
    import efficientnet_lite0

    files = sorted(photos.glob("*.jpg"))
    if len(files) < CALIBRATION + 20:
        print(f"efficientnet: skipped, {photos} holds {len(files)} photos")
        return None
    chosen = np.random.default_rng(0).permutation(len(files))[: CALIBRATION + samples]
    images = np.stack([np.asarray(efficientnet_lite0.photo(files[index])).squeeze() for index in chosen])
    model = efficientnet_lite0.build()
    return Case(model, {"image": images[:CALIBRATION]}, {"image": images[CALIBRATION:]}, "a8w8")


def mobilenet(samples: int) -> Case | None:
    import fashion_mobilenet

    images = fashion_mobilenet.data()
    if images is None:
        print("mobilenet: skipped, the Debian package dataset-fashion-mnist is not installed")
        return None
    model = fashion_mobilenet.train()
    train, test = (np.asarray(images[name], np.float32) for name in _image_keys(images))
    return Case(model.eval(), {"image": train[:CALIBRATION]}, {"image": test[:samples]}, "a8w8")


def mobilenet_v2(samples: int) -> Case | None:
    import fashion_mobilenet
    import mobilenet_v2

    images = fashion_mobilenet.data()
    if images is None:
        print("mobilenetv2: skipped, the Debian package dataset-fashion-mnist is not installed")
        return None
    train, test = (images[name] for name in _image_keys(images))
    calibration, evaluation = (mobilenet_v2.enlarged(part) for part in (train[:CALIBRATION], test[:samples]))
    return Case(mobilenet_v2.train(), {"image": calibration.numpy()}, {"image": evaluation.numpy()}, "a8w8")


def _image_keys(arrays: dict[str, np.ndarray]) -> tuple[str, str]:
    """The names of the training and the test images among the arrays."""
    images = [name for name, array in arrays.items() if array.ndim == 4]
    return images[0], images[1]


def minilm(samples: int) -> Case:
    import minilm_encoder

    count = min(samples, 60)  # 2.8 billion multiply-accumulates a sentence
    tokens = minilm_encoder.tokens(minilm_encoder.sentences(CALIBRATION + count))
    calibration = {name: values[:CALIBRATION] for name, values in tokens.items()}
    return Case(minilm_encoder.build(), calibration, {k: v[CALIBRATION:] for k, v in tokens.items()}, "a16w8")


def measure(name: str, case: Case, target: str) -> None:
    from onnx import load, numpy_helper

    from edgedeploy.calibration.dataset import ArrayDataset
    from edgedeploy.calibration.session import Calibration
    from edgedeploy.compare import wilson_interval
    from edgedeploy.device_profiles.loader import load_profile
    from edgedeploy.exporters.snpe.exporter import SnpeExporter
    from edgedeploy.exporters.snpe.golden import emulate
    from edgedeploy.exporters.snpe.prepare import as_fed
    from edgedeploy.graph.capture import capture
    from edgedeploy.interfaces import ExportContext, RunJob
    from edgedeploy.model.load import load_model
    from edgedeploy.model.options import LoadOptions
    from edgedeploy.targets.snpe.runner import SnpeRunner

    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        example = tuple(torch.from_numpy(values[:1]) for values in case.calibration.values())
        with torch.no_grad():
            torch.export.save(torch.export.export(case.model, example), work / "model.pt2")
        clock = time.perf_counter()
        loaded = load_model(work / "model.pt2", LoadOptions())
        graph = capture(loaded)
        names = [port.name for port in graph.inputs]
        case.seconds["load and capture"], clock = time.perf_counter() - clock, time.perf_counter()
        data = ArrayDataset(dict(zip(names, case.calibration.values(), strict=True)))
        calibration = Calibration(graph, data)
        _ = calibration.table
        case.seconds["calibrate"], clock = time.perf_counter() - clock, time.perf_counter()
        evaluation = ArrayDataset(dict(zip(names, case.evaluation.values(), strict=True)))
        count = len(evaluation)
        asked = ExportContext(
            loaded, graph, load_profile(target), calibration, work / "export",
            options={"simulator_samples": str(count), "simulator_timeout_s": "600"}, pinned=case.candidate,
        )  # fmt: skip
        made = next(SnpeExporter().candidates(asked))
        case.seconds["export, compile, read back"], clock = time.perf_counter() - clock, time.perf_counter()
        (work / "job").mkdir()
        result = SnpeRunner().run(made, RunJob(asked.profile, evaluation, work / "job"))
        case.seconds[f"simulator, {count} samples"] = time.perf_counter() - clock

        port = made.contract.outputs[0]
        simulated = result.outputs[port.source_name].reshape(count, -1)
        fed = [as_fed(sample, made.details["fed_as"]) for sample in evaluation]
        quantized = np.stack([out[port.name].ravel() for out in emulate(made.path.parent / made.emulation, fed)])
        exact = np.stack([loaded.reference(sample)[port.source_name].ravel() for sample in evaluation])
        model = load(made.path.parent / made.emulation)
        scales = {tensor.name: tensor for tensor in model.graph.initializer}
        last = next(node for node in model.graph.node if port.name in node.output)
        steps = np.abs(np.rint((simulated - quantized) / numpy_helper.to_array(scales[last.input[1]])))
        float_bytes = sum(
            numpy_helper.to_array(tensor).nbytes for tensor in graph.model.graph.initializer if tensor.data_type == 1
        )
        size = (made.folder / made.main).stat().st_size
        same = (simulated.argmax(1) == quantized.argmax(1)).sum()
        low, high = wilson_interval(float(same), count)
        print(f"\n{name} ({target}, {made.candidate}, n={count})")
        print(f"  nodes per provider         {made.details['nodes_per_provider']}, {made.details['ops']} ops on HTP")
        print(f"  DLC / FP32 weights         {size / 1e6:.3f} / {float_bytes / 1e6:.3f} MB = {size / float_bytes:.4f}")
        rest = size - made.details["read_back"]["weight_bytes"]
        print(f"  DLC beside its weights     {rest:,} bytes, {rest / made.details['ops']:.0f} an op")
        print(f"  read back                  {made.details['read_back']}")
        print(f"  compiled for               {made.details['compiled_for']}")
        print(f"  rewrites                   {made.details['rewrites']}")
        print(f"  top-1 simulator = Q/DQ     {same}/{count} = {same / count:.4f} [{low:.4f}, {high:.4f}]")
        print(f"  top-1 simulator = FP32     {(simulated.argmax(1) == exact.argmax(1)).mean():.4f}")
        print(f"  outputs within 2 steps     {(steps <= 2).mean():.4f} (within 1: {(steps <= 1).mean():.4f})")
        for what, other in (("Q/DQ", quantized), ("FP32", exact)):
            cosines = (simulated * other).sum(1) / np.linalg.norm(simulated, axis=1) / np.linalg.norm(other, axis=1)
            print(f"  cosine simulator to {what:6s} mean {cosines.mean():.5f}, min {cosines.min():.5f}")
        for stage, seconds in case.seconds.items():
            print(f"  {stage:40s} {seconds:6.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="lstm,gru,mobilenet,mobilenetv2,minilm,efficientnet")
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--target", default="snapdragon888")
    parser.add_argument("--peer", action="store_true", help="also run onnxruntime's own recipe on 20 samples")
    asked = parser.parse_args()
    from snpe_peer import peer

    makers = {
        "lstm": lambda: recurrent("lstm", asked.samples),
        "gru": lambda: recurrent("gru", asked.samples),
        "mobilenet": lambda: mobilenet(asked.samples),
        "mobilenetv2": lambda: mobilenet_v2(asked.samples),
        "minilm": lambda: minilm(asked.samples),
        "efficientnet": lambda: efficientnet(asked.photos, asked.samples),
    }
    for name in asked.models.split(","):
        case = makers[name]()
        if case is not None:
            measure(name, case, asked.target)
            if asked.peer:
                peer(case.model, case.calibration, case.evaluation, wide=case.candidate == "a16w8")


if __name__ == "__main__":
    main()
