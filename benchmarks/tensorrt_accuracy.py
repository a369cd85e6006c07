"""INT8 accuracy for TensorRT beside ModelOpt's and onnxruntime's entropy calibration: trained EfficientNet-Lite0.

    python benchmarks/tensorrt_accuracy.py [--photos DIR] [--modelopt-python PATH] [--calibrate 100] [--threads 1]

DIR holds JPEG photos, one a class, with labels.csv (file,class_index). The first photos in a fixed shuffle calibrate,
all others (300 at least for the full set of 400) are judged; every model sees the same arrays. Each Q/DQ graph is
executed by ONNX Runtime with graph optimizations off. Agreement is the share of photos on which the top class is the
float model's; the interval is Wilson's at 95 %. ModelOpt needs an environment of its own: pip install torch
"nvidia-modelopt[onnx]".
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

EXAMPLES = Path(__file__).parents[1] / "examples"
GOAL = 0.985
MODELOPT = """
import sys, numpy as np
from modelopt.onnx.quantization import quantize
folder, method = sys.argv[1:3]
data = np.load(folder + "/calibration.npz")
quantize(folder + "/float.onnx", quantize_mode="int8", calibration_data={name: data[name] for name in data.files},
         calibration_method=method, calibration_eps=["cpu"], high_precision_dtype="fp32",
         output_path=folder + f"/modelopt-{method}.onnx", log_level="ERROR")
"""


def wilson(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share."""
    share, square = hits / count, z * z / count
    centre, half = share + square / 2, z * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return (centre - half) / (1 + square), (centre + half) / (1 + square)


def photos(folder: Path, calibrate: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibration images, evaluation images, evaluation labels."""
    sys.path.insert(0, str(EXAMPLES))
    from efficientnet_lite0 import photo

    with (folder / "labels.csv").open() as stream:
        rows = [(row["file"], int(row["class_index"])) for row in csv.DictReader(stream)]
    order = np.random.default_rng(2026).permutation(len(rows))
    images = np.stack([photo(folder / rows[index][0]) for index in order])
    labels = np.array([rows[index][1] for index in order])
    return images[:calibrate], images[calibrate:], labels[calibrate:]


def run(model: onnx.ModelProto | Path, images: np.ndarray, threads: int) -> np.ndarray:
    """Scores, one image at a time, exactly as the graph is written."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    content = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])


def onnxruntime_entropy(source: Path, target: Path, images: np.ndarray, name: str) -> None:
    """Onnxruntime's quantizer in the form that TensorRT takes: symmetric int8, float bias, dense ops' inputs."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            row = next(self.rows, None)
            return None if row is None else {name: row[None]}

    extra = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False, "DedicatedQDQPair": True,
             "OpTypesToExcludeOutputQuantization": ["Conv", "Gemm", "MatMul"]}  # fmt: skip
    quantize_static(source, target, Reader(), quant_format=QuantFormat.QDQ, activation_type=QuantType.QInt8,
                    weight_type=QuantType.QInt8, per_channel=True, calibrate_method=CalibrationMethod.Entropy,
                    op_types_to_quantize=["Conv", "Gemm", "MatMul"], extra_options=extra)  # fmt: skip


def main() -> None:
    line = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    line.add_argument("--photos", type=Path, default=Path(__file__).parents[2] / "shared/data/imagenet400")
    line.add_argument("--modelopt-python", default="")
    line.add_argument("--calibrate", type=int, default=100)
    line.add_argument("--threads", type=int, default=1)
    arguments = line.parse_args()
    if not (arguments.photos / "labels.csv").exists():
        print(f"skipped: there are no photos with labels.csv in {arguments.photos} (--photos DIR)")
        return

    import torch

    from edgedeploy.calibration.dataset import ArrayDataset
    from edgedeploy.calibration.quantizer.quantize import quantize
    from edgedeploy.calibration.schemes import TENSORRT
    from edgedeploy.calibration.session import Calibration
    from edgedeploy.exporters.tensorrt.float16 import to_float16
    from edgedeploy.exporters.tensorrt.placement import by_weights, dense, large_only
    from edgedeploy.graph.graph import graph_from_onnx

    calibration, evaluation, labels = photos(arguments.photos, arguments.calibrate)
    from efficientnet_lite0 import build

    buffer = io.BytesIO()
    example = (torch.zeros(1, 3, 224, 224),)
    torch.onnx.export(build(), example, dynamo=True, opset_version=20, verbose=False, external_data=False).save(buffer)
    graph = graph_from_onnx(onnx.load_from_string(buffer.getvalue()))
    name = graph.inputs[0].name
    table = Calibration(graph, ArrayDataset({name: calibration})).table
    placed = dense(graph)
    ours = quantize(graph, table, placed.scheme, exclude=placed.exclude)
    small = large_only(graph, by_weights(graph)[:6])
    models: dict[str, onnx.ModelProto | Path] = {
        "ours, all dense int8": ours,
        "ours, the same with float16": to_float16(ours),
        "ours, 6 smallest layers float": quantize(graph, table, small.scheme, exclude=small.exclude),
        "ours, depthwise int8 as well": quantize(graph, table, TENSORRT),
    }
    folder = Path(tempfile.mkdtemp(prefix="tensorrt-accuracy-"))
    onnx.save(graph.model, folder / "float.onnx")
    onnxruntime_entropy(folder / "float.onnx", folder / "onnxruntime.onnx", calibration, name)
    models["onnxruntime, entropy"] = folder / "onnxruntime.onnx"
    if arguments.modelopt_python:
        np.savez(folder / "calibration.npz", **{name: calibration})
        for method in ("entropy", "max"):
            argv = [arguments.modelopt_python, "-c", MODELOPT, str(folder), method]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"ModelOpt, {method}: failed: {done.stderr.strip().splitlines()[-1]}")
            else:
                models[f"ModelOpt, {method}"] = folder / f"modelopt-{method}.onnx"
    else:
        print("ModelOpt: not measured (--modelopt-python PATH)")

    reference = run(graph.model, evaluation, arguments.threads)
    top = reference.argmax(1)
    print(f"EfficientNet-Lite0, trained: {len(calibration)} photos calibrate, {len(evaluation)} others are judged; "
          f"float top-1 {np.mean(top == labels):.1%}")  # fmt: skip
    print(
        f"{'model':32} {'agreement':>9} {'95 % interval':>16} {'top-1':>6} {'SQNR dB':>8} {'quantized activations':>22}"
    )
    for label, model in models.items():
        scores = run(model, evaluation, arguments.threads)
        hits = int(np.sum(scores.argmax(1) == top))
        low, high = wilson(hits, len(top))
        noise = float(np.mean((scores - reference) ** 2))
        sqnr = 10 * math.log10(float(np.mean(reference**2)) / noise)
        loaded = onnx.load(model) if isinstance(model, Path) else model
        count = sum(node.op_type == "QuantizeLinear" for node in loaded.graph.node)
        share = hits / len(top)
        mark = "" if not label.startswith("ours, all") else ("  reaches" if share >= GOAL else "  MISSES") + f" {GOAL}"
        print(f"{label:32} {share:9.4f} {f'{low:.3f} to {high:.3f}':>16} {np.mean(scores.argmax(1) == labels):6.1%} "
              f"{sqnr:8.2f} {count:22}{mark}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
