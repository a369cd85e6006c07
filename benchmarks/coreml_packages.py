"""Core ML packages without a Mac: conversion, both gates, size, agreement, speed and memory of the executor.

    python benchmarks/coreml_packages.py [--photos DIR] [--count 400] [--only NAME ...] [--part models photos]

Every model is exported for iphone14pro and executed from the saved package. The photo part needs a folder of at
least 300 ImageNet photos and is skipped clearly without one. There is no peer: no other tool executes an ML program
off a Mac. Times are process CPU seconds on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import coreml_models
import numpy as np
import torch

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.session import Calibration
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.errors import EdgeDeployError
from edgedeploy.exporters.coreml.exporter import CoreMlExporter
from edgedeploy.graph.capture import capture
from edgedeploy.interfaces import Artefact, ExportContext, RunJob
from edgedeploy.model.load import load_model
from edgedeploy.model.loaded import LoadedModel
from edgedeploy.model.options import LoadOptions
from edgedeploy.targets.coreml.executor import Executor
from edgedeploy.targets.coreml.feeds import feed
from edgedeploy.targets.coreml.gate import compare
from edgedeploy.targets.coreml.runner import CoreMlRunner

PROFILE = "iphone14pro"


def context(model: torch.nn.Module, samples: coreml_models.Samples, folder: Path, **options: str) -> ExportContext:
    """Save the model as a .pt2 and load it the way the command does."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.pt2"
    example = tuple(torch.from_numpy(values[:1]) for values in samples.values())
    with torch.no_grad():
        torch.export.save(torch.export.export(model, example, strict=False), path)
    loaded = load_model(path, LoadOptions())
    graph = capture(loaded)
    calibration = Calibration(graph, dataset(loaded, samples))
    return ExportContext(loaded, graph, load_profile(PROFILE), calibration, folder, options=options)


def dataset(loaded: LoadedModel, samples: coreml_models.Samples) -> ArrayDataset:
    """Samples under the names that the loaded model gives its inputs."""
    return ArrayDataset({spec.name: values for spec, values in zip(loaded.inputs, samples.values(), strict=True)})


def first(export: ExportContext) -> Artefact:
    return next(CoreMlExporter().candidates(export))


def models(names: list[str], root: Path) -> None:
    gate_title, half_title = "float32 gate: cosine, error", "float16: cosine  err/spread  top-1 (distinct)"
    print(f"{'model':30} {'route':8} {gate_title:30} {half_title:46} {'size':>9}")
    for name, build in coreml_models.MODELS.items():
        if names and not any(word.lower() in name.lower() for word in names):
            continue
        model, samples = build()
        export = context(model, samples, root / name.replace(" ", "_"))
        for artefact in CoreMlExporter().candidates(export):
            try:
                result = CoreMlRunner().run(artefact, RunJob(export.profile, export.calibration.data, export.work_dir))
                break
            except EdgeDeployError as error:
                print(f"{name:30} {artefact.candidate}: {error}")
        gate = {figure.name: figure.value for figure in result.figures}
        rows = [export.model.reference(sample) for sample in export.calibration.data]
        agreements = [
            compare(output, values, np.stack([row[output] for row in rows]))
            for output, values in result.outputs.items()
        ]
        worst = min(agreements, key=lambda item: item.cosine)
        top = "-" if worst.top1_agreement is None else f"{worst.top1_agreement:.3f} ({worst.distinct_top1})"
        size = artefact.figures[0].value or 0.0
        print(
            f"{name:30} {artefact.details['route']:8} "
            f"{gate['float32_cosine_min']:.7f}, {gate['float32_max_error']:.1e}{'':10} "
            f"{worst.cosine:.6f}  {worst.spread_error or float('nan'):.2e}  {top:20} {size:8.3f}MB",
            flush=True,
        )


def efficientnet(photos: Path | None, count: int, root: Path) -> None:
    """The must-reach figures of EfficientNet-Lite0."""
    images, names = coreml_models.photos(photos, count)
    model, _ = coreml_models.efficientnet()
    samples = {"image": images}
    plain = context(model, samples, root / "float16")
    artefact = first(plain)
    twin = artefact.folder / str(artefact.details["float32_twin"]) / artefact.main
    whole = sum(file.stat().st_size for file in twin.rglob("*") if file.is_file()) / 1e6
    sizes = {"float16": artefact.figures[0].value or 0.0}
    packages = {"float16": artefact}
    for weights in ("int8", "palette4"):
        packages[weights] = first(context(model, samples, root / weights, weights=weights))
        sizes[weights] = packages[weights].figures[0].value or 0.0
    few = {"image": images[:20]}
    packages["w8a8"] = first(context(model, few, root / "w8a8", weights="int8", activations="int8"))
    sizes["w8a8"] = packages["w8a8"].figures[0].value or 0.0
    print(f"\nEfficientNet-Lite0, FLOAT32 package {whole:.2f} MB")
    reference = np.concatenate([plain.model.reference(sample)["output"] for sample in plain.calibration.data])
    name = plain.model.inputs[0].name
    enough = len(names) >= 300
    for weights, package in packages.items():
        subset = images if weights in ("float16", "int8") else images[:100]
        executor = Executor(package.path)
        outputs = [
            executor.run(feed(package.contract, package.details, {name: image[None]}))[package.contract.outputs[0].name]
            for image in subset
        ]
        report = compare("output", np.concatenate(outputs), reference[: len(subset)])
        print(
            f"  {weights:9} {sizes[weights]:6.2f} MB  {sizes[weights] / whole:.3f}x FP32   top-1 agreement "
            f"{report.top1_agreement:.4f} on {len(subset)} photos ({report.distinct_top1} distinct), "
            f"error/spread {report.spread_error or 0:.2e}"
        )
    if not enough:
        print(f"  only {len(names)} photos: the agreement figure needs 300 (--photos DIR)")
    speed(artefact, {name: images[:1]})


def speed(artefact: Artefact, first_sample: coreml_models.Samples) -> None:
    """CPU time an image and memory, float16 mode, one thread."""
    executor = Executor(artefact.path)
    sample = feed(artefact.contract, artefact.details, first_sample)
    executor.run(sample)
    times = []
    for _ in range(15):
        start = time.process_time()
        executor.run(sample)
        times.append(time.process_time() - start)
    weights = executor.package.weight_bytes
    print(
        f"  executor, float16 mode: {statistics.median(times):.3f} CPU s an image (median of {len(times)}); "
        f"activations at most {executor.peak_bytes / 1e6:.1f} MB, weights {weights / 1e6:.1f} MB (mapped): "
        f"together {(executor.peak_bytes + weights) / weights:.2f}x the weights"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--part", nargs="*", default=["models", "photos"], choices=["models", "photos"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        if "models" in arguments.part:
            models(arguments.only, Path(folder) / "models")
        if "photos" in arguments.part and not arguments.only:
            efficientnet(arguments.photos, arguments.count, Path(folder) / "efficientnet")
    return 0


if __name__ == "__main__":
    sys.exit(main())
