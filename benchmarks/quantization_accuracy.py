"""EfficientNet-Lite0 under every INT8 scheme: how often the top-1 class stays that of the float model.

    python benchmarks/quantization_accuracy.py [--photos DIR] [--modelopt-python PATH] [--calibration 100]
        [--nearest] [--snapdragon]

Trained weights, real photos. Each scheme's Q/DQ graph is simulated with ONNX Runtime's optimizations off, on photos
that calibration did not see; ranges by ``auto``, no layer kept at higher precision. Whatever is chosen is chosen on
calibration photos: the method by `Calibration.table_for`, as `deploy` does.
The peers quantize the same captured graph with the same photos, by each of their methods, and are simulated alike
(onnxruntime's S8S8 lays the same grid as its U8S8, so it is one row); ModelOpt needs an environment of its own
(pip install torch "nvidia-modelopt[onnx]"), named by --modelopt-python. --nearest leaves out rounding by outputs;
--snapdragon measures instead the candidates that the Snapdragon backend ships, with and without it. Intervals are
Wilson's at 95 %.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

REQUIRED = 0.985


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    z = 1.959964
    share, spread = hits / count, z * z / count
    centre = (share + spread / 2) / (1 + spread)
    half = z * np.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return float(centre - half), float(centre + half)


def captured(folder: Path) -> object:
    import efficientnet_lite0
    import torch

    from edgedeploy.graph.capture import capture
    from edgedeploy.model.load import load_model

    program = torch.export.export(efficientnet_lite0.build(), (torch.zeros(1, 3, 224, 224),))
    torch.export.save(program, folder / "efficientnet_lite0.pt2")
    return capture(load_model(folder / "efficientnet_lite0.pt2"))


def onnxruntime_models(path: Path, name: str, images: np.ndarray, folder: Path) -> Iterator[tuple[str, Path]]:
    """Quantize with onnxruntime's static quantizer, per channel, by each of its methods."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    class Reader:
        def __init__(self) -> None:
            self.rows = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            row = next(self.rows, None)
            return None if row is None else {name: row[None]}

    for method in (CalibrationMethod.MinMax, CalibrationMethod.Entropy, CalibrationMethod.Percentile):
        target = folder / f"onnxruntime-{method.name}.onnx"
        quantize_static(
            path,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
        )
        yield f"onnxruntime {method.name.lower()}", target


def modelopt_models(path: Path, name: str, images: np.ndarray, folder: Path, python: str) -> Iterator[tuple[str, Path]]:
    """ModelOpt's INT8, by each of its calibration methods, in its own environment."""
    np.savez(folder / "calibration.npz", **{name: images})
    for method in ("entropy", "max"):
        target = folder / f"modelopt-{method}.onnx"
        code = (
            "import sys, numpy\n"
            "from modelopt.onnx.quantization import quantize\n"
            "path, data, target, method = sys.argv[1:]\n"
            "quantize(path, quantize_mode='int8', calibration_data=dict(numpy.load(data)), calibration_method=method,"
            " calibration_eps=['cpu'], high_precision_dtype='fp32', output_path=target)\n"
        )
        command = [python, "-c", code, str(path), str(folder / "calibration.npz"), str(target), method]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not target.exists():
            print(f"modelopt {method}: failed, {done.stderr.strip().splitlines()[-1:]}")
        else:
            yield f"modelopt {method}", target


def snapdragon_models(graph: object, session: object) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The Snapdragon backend's candidates, weights rounded by outputs as it ships them and to the nearest code."""
    from dataclasses import replace

    from edgedeploy.exporters.snpe import precision
    from edgedeploy.exporters.snpe.prepare import prepare
    from edgedeploy.progress import NoProgress

    ready = prepare(graph, session, NoProgress())
    for name, table in (("rounded", ready.table), ("nearest", replace(ready.table, moments=None))):
        for recipe in (precision.a8w8(ready.graph), precision.mixed(ready.graph, table), precision.a16w8(ready.graph)):
            kind = recipe.scheme.name if len(recipe.other) < 2 else f"{recipe.scheme.name}, {len(recipe.other)} raised"
            yield f"snapdragon {kind}, {name}", precision.apply(recipe, ready.graph, table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "imagenet400")
    parser.add_argument("--modelopt-python", default="")
    parser.add_argument("--calibration", type=int, default=100)
    parser.add_argument("--schemes", nargs="*", default=[])
    parser.add_argument("--nearest", action="store_true")
    parser.add_argument("--snapdragon", action="store_true")
    parser.add_argument("--peers", nargs="*", default=["onnxruntime", "modelopt"])
    options = parser.parse_args()
    if not options.photos.is_dir():
        print(f"skipped: no photos at {options.photos}; name a folder with --photos")
        return 0

    import efficientnet_lite0

    from edgedeploy.calibration.dataset import ArrayDataset
    from edgedeploy.calibration.options import CalibrationOptions
    from edgedeploy.calibration.quantizer import quantize
    from edgedeploy.calibration.schemes import SCHEMES
    from edgedeploy.calibration.session import Calibration
    from edgedeploy.calibration.simulate import Simulator, sqnr_db

    files = sorted(options.photos.glob("*.jpg"))
    images = np.stack([efficientnet_lite0.photo(path) for path in files])
    # Evenly spread over the sorted names, so that the split is the same on every machine.
    chosen = np.unique(np.linspace(0, len(files) - 1, options.calibration).astype(int))
    calibration, rest = images[chosen], np.delete(images, chosen, axis=0)
    failed, measured = [], 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        graph = captured(folder)
        onnx.save(graph.model, folder / "float.onnx")
        tensor = graph.inputs[0].name
        samples = list(ArrayDataset({tensor: rest}))
        reference = Simulator(graph, optimized=True).run(samples)
        output = next(iter(reference))
        start = time.process_time()
        given = CalibrationOptions(round_by_outputs=not options.nearest)
        session = Calibration(graph, ArrayDataset({tensor: calibration}), given)
        _ = session.table
        print(f"{len(chosen)} photos calibrate ({time.process_time() - start:.1f} CPU-s), {len(rest)} others evaluate")
        print(f"{'':<40} {'agreement':>9}  {'n':>4}  {'95 % interval':<15} {'SQNR dB':>7}")

        def report(label: str, model: onnx.ModelProto) -> float:
            outputs = Simulator(model, optimized=False).run(samples)
            # A peer may rename the output.
            outputs = {output: next(iter(outputs.values()))}
            same = reference[output].argmax(-1) == outputs[output].argmax(-1)
            low, high = wilson(int(same.sum()), same.size)
            sqnr = sqnr_db(reference, outputs)
            print(f"{label:<40} {same.mean():>9.4f}  {same.size:>4}  {low:.3f} to {high:.3f}  {sqnr:>7.2f}", flush=True)
            return float(same.mean())

        if options.snapdragon:
            for label, model in snapdragon_models(graph, session):
                report(label, model)
            return 0
        for key, scheme in SCHEMES.items():
            if options.schemes and key not in options.schemes:
                continue
            measured += 1
            table = session.table_for(scheme)
            label = f"edgedeploy {key}, {session.chosen_method(scheme.name)}"
            if report(label, quantize(graph, table, scheme)) < REQUIRED:
                failed.append(key)
        if "onnxruntime" in options.peers:
            for label, path in onnxruntime_models(folder / "float.onnx", tensor, calibration, folder):
                report(label, onnx.load(path))
        if "modelopt" in options.peers and options.modelopt_python:
            arguments = (folder / "float.onnx", tensor, calibration, folder, options.modelopt_python)
            for label, path in modelopt_models(*arguments):
                report(label, onnx.load(path))
        elif "modelopt" in options.peers:
            print("modelopt: not measured (no --modelopt-python)")
    verdict = f"missed by {', '.join(failed)}" if failed else f"met by all {measured} schemes measured"
    print(f"required: agreement of at least {REQUIRED}; {verdict}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
