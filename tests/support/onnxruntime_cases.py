"""Captured graphs of the zoo's models, and an export context around each, for the ONNX Runtime tests."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
import zoo
from torch import nn

from edgedeploy.calibration.dataset import ArrayDataset, Dataset
from edgedeploy.calibration.session import Calibration
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.exporters.onnxruntime.exporter import OnnxRuntimeExporter
from edgedeploy.graph.capture import capture
from edgedeploy.graph.graph import Graph
from edgedeploy.interfaces import Artefact, ExportContext
from edgedeploy.model.load import load_model
from edgedeploy.model.loaded import LoadedModel
from edgedeploy.targets.onnxruntime.exact import has_signed_activations, unsigned_weights


@dataclass(frozen=True)
class Case:
    """A loaded and captured model with calibration and evaluation samples and its FP32 outputs on the latter."""

    model: LoadedModel
    graph: Graph
    calibration: Dataset
    samples: Dataset
    reference: np.ndarray

    def context(self, folder: Path, profile: str = "x86-avx512vnni", **changes: object) -> ExportContext:
        calibration = Calibration(self.graph, None if changes.pop("data_free", False) else self.calibration)
        return ExportContext(self.model, self.graph, load_profile(profile), calibration, folder, **changes)

    def artefact(self, folder: Path, candidate: str, profile: str = "x86-avx512vnni") -> Artefact:
        return next(OnnxRuntimeExporter().candidates(self.context(folder, profile, pinned=candidate)))


def case(module: nn.Module, arrays: dict[str, np.ndarray], calibration: int) -> Case:
    """Export, load and capture a module; the first ``calibration`` samples calibrate, the rest evaluate."""
    example = tuple(torch.tensor(array[:1]) for array in arrays.values())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        torch.export.save(torch.export.export(module, example), path)
        model = load_model(path)
        graph = capture(model)
    named = {spec.name: array for spec, array in zip(graph.inputs, arrays.values(), strict=True)}
    samples = ArrayDataset({name: array[calibration:] for name, array in named.items()})
    output = graph.outputs[0].name
    return Case(
        model,
        graph,
        ArrayDataset({name: array[:calibration] for name, array in named.items()}),
        samples,
        np.stack([model.reference(sample)[output] for sample in samples]),
    )


@functools.cache
def digits() -> Case:
    """The trained digits CNN: 100 calibration and 200 evaluation images."""
    train, _, test, _ = zoo.digits_data()
    return case(zoo.digits_cnn(), {"image": np.concatenate([train[:100], test[:200]])}, 100)


@functools.cache
def minilm() -> Case:
    """The trained sentence encoder: 4 calibration and 12 evaluation sentences."""
    return case(zoo.minilm(), zoo.minilm_inputs(16), 4)


def execute(artefact: Artefact, samples: Dataset) -> np.ndarray:
    """What an artefact's first output is over samples on its target, whatever CPU runs the test: exact integers."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    model = onnx.load(artefact.path)
    options.add_session_config_entry("session.qdqisint8allowed", "1" if has_signed_activations(model) else "0")
    unsigned_weights(model)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, sample)[0] for sample in samples])


def cosines(reference: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Cosine of each sample's flattened output."""
    a, b = reference.reshape(len(reference), -1), outputs.reshape(len(outputs), -1)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def agreement(reference: np.ndarray, outputs: np.ndarray) -> float:
    """Share of samples with the same largest element."""
    a, b = reference.reshape(len(reference), -1), outputs.reshape(len(outputs), -1)
    return float((a.argmax(1) == b.argmax(1)).mean())
