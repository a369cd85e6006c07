"""`SnpeRunner`: the HTP simulator on this host, or the phone behind adb."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedeploy.errors import InputError, MissingToolError
from edgedeploy.evidence import Evidence
from edgedeploy.exporters.snpe.compile import off_npu
from edgedeploy.exporters.snpe.qnn.install import INSTALL, require_qnn
from edgedeploy.interfaces import Artefact, RunJob, RunResult, cannot_loop
from edgedeploy.targets.snpe.layers import layer_errors
from edgedeploy.targets.snpe.phone import run_on_phone
from edgedeploy.targets.snpe.simulator import allowed_on_cpu, simulate

if TYPE_CHECKING:
    from edgedeploy.exporters.snpe.qnn.install import QnnInstall


class SnpeRunner:
    """Runs Snapdragon artefacts; the simulator proves numerics and says nothing of latency."""

    def run(self, artefact: Artefact, job: RunJob) -> RunResult:
        """Run over a prefix of the samples.

        Raises:
            MissingToolError: no simulator, or no adb and phone runtime, is installed.
            InputError: a device that is not ``adb:SERIAL``.
            ToolFailedError: the simulator, the transport or the phone failed, or a node is off the NPU.

        """
        if job.device.startswith("adb:") and job.states:
            return cannot_loop("snpe-net-run on the phone")
        if job.device.startswith("adb:"):
            if artefact.details.get("cpu_nodes"):
                raise InputError(
                    "snpe-net-run runs a DLC, and a model with ops on the CPU is none.",
                    found=f"on the CPU: {', '.join(artefact.details['cpu_nodes'])}",
                    remedy="Run it on the phone in ONNX Runtime (android/Inference.kt), or replace these ops.",
                )
            return run_on_phone(artefact, job)
        if job.device:
            raise InputError(
                "A Snapdragon phone is reached over adb.",
                found=f"--device {job.device}",
                remedy="Write --device adb:SERIAL with a serial that `adb devices` lists, or leave it out to simulate.",
            )
        install = require_qnn()
        if "context_model" not in artefact.details:
            raise MissingToolError(
                "A Hexagon context binary, which the HTP simulator runs,",
                install=f"Build the bundle again with onnxruntime-qnn beside the SDK: {INSTALL}.",
                found=f"the DLC was written by {artefact.details.get('toolchain', 'another toolchain')}",
            )
        return _simulated(install, artefact, job)


def _simulated(install: QnnInstall, artefact: Artefact, job: RunJob) -> RunResult:
    done = simulate(install, artefact, job)
    details = {
        "simulator": f"HTP simulator of onnxruntime-qnn {install.version}",
        "samples": done.samples,
        "nodes_per_provider": done.answer.providers,
        "cpu_fallback": "disabled; every node of the session was listed on the NPU",
    }
    on_cpu = [f"{node.name} ({node.op_type})" for node in off_npu(done.answer, split=True)]
    notes = [
        f"{done.samples} of {len(job.samples)} samples ran in Qualcomm's HTP simulator, "
        "which proves numerics and says nothing of latency or power"
    ]
    if on_cpu:
        details["cpu_fallback"] = f"allowed for {allowed_on_cpu(artefact)} ops"
        details["cpu_nodes"] = on_cpu
        notes.append(
            f"{len(on_cpu)} of the model's ops ran on the CPU, as allow_cpu_nodes says: {', '.join(on_cpu)}; "
            "estimates count them as if the NPU ran them"
        )
    if artefact.details.get("layer_errors") and not job.states:
        errors = layer_errors(install, artefact, job)
        details["layer_errors"] = [error.as_json() for error in errors]
        worst = max(errors, key=lambda error: error.share_above_2, default=None)
        if worst is not None:
            notes.append(
                f"the layer that differs most from the Q/DQ simulation is {worst.tensor}: {worst.share_above_2:.2%} of "
                f"its values by more than 2 steps"
            )
    return RunResult(done.outputs, Evidence.SIMULATOR, notes=tuple(notes), details=details)
