"""Trained models through the Snapdragon backend: HTP simulator against Q/DQ simulation and FP32, sizes, stages.

    python benchmarks/snpe_models.py [--models efficientnet,mobilenet,minilm,lstm,gru] [--photos FOLDER] [--samples 100]

For each model: how many nodes are on the NPU, the DLC's size against the FP32 weights, what the read-back compared, the
agreement of the simulator with our Q/DQ simulation (with n and its 95 % Wilson interval), the share of outputs within
two steps, cosines, and the seconds of each stage. Simulator time is no latency. EfficientNet-Lite0 needs a folder of
ImageNet photos (``--photos``: 64 calibrate, the others are judged) and is skipped without one.
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


def _image_keys(arrays: dict[str, np.ndarray]) -> tuple[str, str]:
    """The names of the training and the test images among the arrays."""
    images = [name for name, array in arrays.items() if array.ndim == 4]
    return images[0], images[1]


def minilm(samples: int) -> Case:
    import minilm_encoder

    count = min(samples, 40)  # 2.8 billion multiply-accumulates a sentence
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


def peer(case: Case) -> None:
    """The peer: onnxruntime's own QNN recipe (min-max, per channel) over the same samples, compiled the same way."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize
    from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

    from edgedeploy.errors import EdgeDeployError
    from edgedeploy.exporters.snpe.compile import compile_graph
    from edgedeploy.exporters.snpe.qnn.host import run_job
    from edgedeploy.exporters.snpe.qnn.install import require_qnn
    from edgedeploy.exporters.snpe.qnn.job import Job
    from edgedeploy.exporters.snpe.qnn.options import Hexagon, htp_options

    class Samples(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter(range(CALIBRATION))

        def get_next(self) -> dict[str, np.ndarray] | None:
            row = next(self.rows, None)
            return None if row is None else {key: value[row : row + 1] for key, value in case.calibration.items()}

    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        example = tuple(torch.from_numpy(values[:1]) for values in case.calibration.values())
        plain, quantized = work / "float.onnx", work / "peer.onnx"
        torch.onnx.export(case.model, example, plain, dynamo=True, opset_version=20, external_data=False,
                          input_names=list(case.calibration), output_names=["result"])  # fmt: skip
        wide = case.candidate == "a16w8"
        config = get_qnn_qdq_config(
            str(plain), Samples(), activation_type=QuantType.QUInt16 if wide else QuantType.QUInt8,
            weight_type=QuantType.QUInt8 if wide else QuantType.QInt8, per_channel=not wide,
        )  # fmt: skip
        quantize(str(plain), str(quantized), config)
        model = onnx.load(quantized)
        print(f"  peer: onnxruntime get_qnn_qdq_config, {len(model.graph.node)} nodes")
        try:
            compiled = compile_graph(require_qnn(), quantized, Hexagon(68), Hexagon(68, 30), work / "compiled")
        except EdgeDeployError as problem:
            print(f"    not compiled: {problem.what} {problem.found}"[:300])
            return
        count = min(20, len(next(iter(case.evaluation.values()))))
        (work / "in").mkdir()
        (work / "out").mkdir()
        exact = []
        for row in range(count):
            sample = {key: value[row : row + 1] for key, value in case.evaluation.items()}
            np.savez(work / "in" / f"{row}.npz", **sample)
            with torch.no_grad():
                exact.append(case.model(*(torch.from_numpy(value) for value in sample.values())).numpy().ravel())
        job = Job(
            str(compiled.context_model), htp_options(require_qnn(), Hexagon(68, 30)), str(work / "answer.json"),
            samples=str(work / "in"), outputs=str(work / "out"), count=count, load_by_path=True,
        )  # fmt: skip
        run_job(job, work / "run", timeout_s=600)
        got = np.stack([np.load(work / "out" / f"{row}.npz")["result"].ravel() for row in range(count)])
        want = np.stack(exact)
        cosines = (got * want).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(want, axis=1)
        same = (got.argmax(1) == want.argmax(1)).mean()
        print(f"    DLC {compiled.dlcs[0].stat().st_size / 1e6:.3f} MB, {compiled.trace.mapped} ops on HTP, n={count}")
        print(f"    cosine to FP32 mean {cosines.mean():.5f}, min {cosines.min():.5f}, top-1 {same:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="lstm,gru,mobilenet,minilm,efficientnet")
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--target", default="snapdragon888")
    parser.add_argument("--peer", action="store_true", help="also run onnxruntime's own recipe on 20 samples")
    asked = parser.parse_args()
    makers = {
        "lstm": lambda: recurrent("lstm", asked.samples),
        "gru": lambda: recurrent("gru", asked.samples),
        "mobilenet": lambda: mobilenet(asked.samples),
        "minilm": lambda: minilm(asked.samples),
        "efficientnet": lambda: efficientnet(asked.photos, asked.samples),
    }
    for name in asked.models.split(","):
        case = makers[name]()
        if case is not None:
            measure(name, case, asked.target)
            if asked.peer:
                peer(case)


if __name__ == "__main__":
    main()
