"""The TensorRT backend's runner: emulation on this host, or the real thing on a device."""

from __future__ import annotations

import onnxruntime

from edgedeploy.errors import InputError
from edgedeploy.evidence import Evidence
from edgedeploy.interfaces import Artefact, RunJob, RunResult, cannot_loop
from edgedeploy.targets.tensorrt.device import run_on_device
from edgedeploy.targets.tensorrt.emulate import emulate


class TensorRtRunner:
    """Executes the exact graph with ONNX Runtime, or builds and measures on ``--device local`` or ``ssh:USER@HOST``."""

    def run(self, artefact: Artefact, job: RunJob) -> RunResult:
        """Run the artefact; see `edgedeploy.interfaces.Runner`."""
        if job.device:
            return cannot_loop("build.py on the device") if job.states else run_on_device(artefact, job)
        if artefact.emulation is None:
            raise InputError("This TensorRT artefact has no graph to emulate.", found=artefact.candidate)
        model = artefact.folder / artefact.emulation
        outputs = emulate(model, artefact.contract, job.samples, job.progress, job.states)
        notes = ("numerics by ONNX Runtime on the exact graph; no GPU was used: latency and power are not measured",)
        details = {"onnxruntime": onnxruntime.__version__, "graph_optimizations": "off"}
        return RunResult(outputs, Evidence.EXECUTOR, notes=notes, details=details)
