"""Contexts, candidates and results of the Core ML backend, for its tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.session import Calibration
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.exporters.coreml.exporter import CoreMlExporter
from edgedeploy.graph.capture import capture
from edgedeploy.interfaces import Artefact, ExportContext, RunJob, RunResult
from edgedeploy.model.load import load_model
from edgedeploy.model.options import LoadOptions
from edgedeploy.targets.coreml.runner import CoreMlRunner


def export_context(
    model: torch.nn.Module, samples: dict[str, np.ndarray], folder: Path, profile: str = "iphone14pro", **options: str
) -> ExportContext:
    """A model saved as .pt2, loaded and captured as the command does."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.pt2"
    if not path.exists():
        example = tuple(torch.from_numpy(value[:1]) for value in samples.values())
        with torch.no_grad():
            torch.export.save(torch.export.export(model, example, strict=False), path)
    loaded = load_model(path, LoadOptions())
    graph = capture(loaded)
    data = ArrayDataset(samples)
    work = folder / f"work-{len(list(folder.glob('work-*')))}"
    work.mkdir()
    return ExportContext(loaded, graph, load_profile(profile), Calibration(graph, data), work, options=options)


def first(context: ExportContext) -> Artefact:
    return next(CoreMlExporter().candidates(context))


def run(artefact: Artefact, context: ExportContext, samples: dict[str, np.ndarray], device: str = "") -> RunResult:
    job = RunJob(context.profile, ArrayDataset(samples), context.work_dir, device=device)
    return CoreMlRunner().run(artefact, job)


def figure(result: RunResult, name: str) -> Any:
    return next(item for item in result.figures if item.name == name)


def reference(context: ExportContext, samples: dict[str, np.ndarray], output: str = "output") -> np.ndarray:
    return np.stack([context.model.reference(sample)[output] for sample in ArrayDataset(samples)])
