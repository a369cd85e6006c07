"""The backend table: lazy, complete, open to third parties."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgedeploy import backends as table
from edgedeploy import deploy
from edgedeploy.backends import BUILT_IN, Backend, backend, backends
from edgedeploy.errors import ExitCode, InputError, ToolFailedError
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.interfaces import Artefact, RunResult, Selection
from edgedeploy.tensors import Contract, PortSpec

THEIRS = Backend("theirs", f"{__name__}:TheirExporter", f"{__name__}:TheirRunner")

PROFILE = """
[device]
name = "their-device"
class = "edge"
backend = "theirs"
[budget]
size_mb = { max = 1 }
[quality]
min_cosine = 0.9
"""


class TheirExporter:
    """First a candidate whose weights are all zero, then, told that it failed, the graph as it is."""

    selection = Selection.FIRST_PASSING

    def candidates(self, context):
        for name in ("broken", "whole"):
            model = onnx.ModelProto()
            model.CopyFrom(context.graph.model)
            if name == "broken":
                for tensor in model.graph.initializer:
                    if tensor.data_type == onnx.TensorProto.FLOAT:
                        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ones(tensor.dims, np.float32), tensor.name))
            folder = context.work_dir / name
            folder.mkdir()
            onnx.save(model, folder / "model.onnx")
            size = (folder / "model.onnx").stat().st_size / 1e6
            ports = (
                tuple(PortSpec(spec.name, spec.name, spec.shape, spec.dtype) for spec in specs)
                for specs in (context.graph.inputs, context.graph.outputs)
            )
            yield Artefact(
                name, folder, Path("model.onnx"), Contract(*ports), "float32",
                figures=(Figure("size_mb", size, Evidence.ARTEFACT),),
                details={"before": [[item.candidate, item.reason] for item in context.rejections]},
            )  # fmt: skip


class BrokenRunner:
    """Breaks on the first candidate, as a vendor tool may."""

    def run(self, artefact, job):
        if artefact.candidate == "broken":
            raise ToolFailedError("The simulator crashed.")
        return TheirRunner().run(artefact, job)


class TheirRunner:
    def run(self, artefact, job):
        session = onnxruntime.InferenceSession(artefact.path)
        names = [output.name for output in session.get_outputs()]
        rows = [session.run(names, sample) for sample in job.samples]
        outputs = {name: np.stack([row[index] for row in rows]) for index, name in enumerate(names)}
        return RunResult(outputs, Evidence.EXECUTOR)


def rejections(bundle: Path) -> list:
    """What the exporter had been told when it made the candidate that was taken."""
    return json.loads((bundle / "manifest.json").read_text())["artefact"]["details"]["before"]


@pytest.fixture
def theirs(monkeypatch):
    sys.modules.setdefault(__name__, sys.modules[TheirExporter.__module__])
    point = EntryPoint("theirs", f"{__name__}:THEIRS", "edgedeploy.backends")
    monkeypatch.setattr(EntryPoint, "load", lambda self: THEIRS)
    monkeypatch.setattr(table, "entry_points", lambda group: [point])


def test_a_third_partys_backend_goes_the_whole_way(theirs, model, tmp_path):
    (tmp_path / "their.toml").write_text(PROFILE)
    result = deploy(model, str(tmp_path / "their.toml"), output=tmp_path / "out")
    assert result.exit_code is ExitCode.OK
    assert result.targets[0].candidate == "whole"
    [(candidate, reason)] = rejections(result.bundle)
    assert candidate == "broken" and "min_cosine" in reason


def test_a_candidate_that_breaks_the_tool_is_dropped_for_the_next(theirs, monkeypatch, model, tmp_path):
    monkeypatch.setattr(EntryPoint, "load", lambda self: replace(THEIRS, runner=f"{__name__}:BrokenRunner"))
    (tmp_path / "their.toml").write_text(PROFILE)
    result = deploy(model, str(tmp_path / "their.toml"), output=tmp_path / "out")
    assert result.targets[0].candidate == "whole"
    [(_, reason)] = rejections(result.bundle)
    assert "crashed" in reason


def test_two_backends_of_one_name_are_refused(theirs, monkeypatch):
    point = EntryPoint("coreml", "elsewhere:BACKEND", "edgedeploy.backends")
    monkeypatch.setattr(table, "entry_points", lambda group: [point])
    with pytest.raises(InputError, match="coreml"):
        backends()


def test_an_unknown_backend_lists_the_known_ones():
    with pytest.raises(InputError, match="onnxruntime") as caught:
        backend("caffe")
    assert all(item.name in caught.value.remedy for item in BUILT_IN)


@pytest.mark.parametrize("entry", BUILT_IN, ids=lambda entry: entry.name)
def test_every_built_in_backend_loads_without_its_vendor_packages(entry):
    """Constructing both halves must not import a vendor package: that waits until it is used."""
    vendor = {
        "coremltools",
        "onnxruntime_qnn",
        "tensorrt",
        "tensorrt_rtx",
        "ai_edge_litert",
        "tflite_micro",
        "tensorflow",
    }
    code = (
        f"import sys; from edgedeploy.backends import backend; b = backend({entry.name!r});"
        f"b.load_exporter(); b.load_runner(); print(sorted({vendor!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
