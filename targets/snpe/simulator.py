"""Run the shipped Hexagon context binary in Qualcomm's HTP simulator on this host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.errors import ToolFailedError
from edgedeploy.exporters.snpe.compile import PROVIDER, off_npu
from edgedeploy.exporters.snpe.golden import real, stored
from edgedeploy.exporters.snpe.prepare import as_fed
from edgedeploy.exporters.snpe.qnn.host import progress_of
from edgedeploy.exporters.snpe.qnn.install import QnnInstall
from edgedeploy.exporters.snpe.qnn.job import Answer, Code, Feedback, Job
from edgedeploy.exporters.snpe.qnn.options import Hexagon, htp_options

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.interfaces import Artefact, RunJob
    from edgedeploy.progress import Progress
    from edgedeploy.tensors import PortSpec

#: The simulator needs about a second for 300 million multiply-accumulates on one core.
_MACS = 8e9
_FEWEST, _MOST = 20, 100


@dataclass(frozen=True)
class Simulated:
    """Outputs by captured name, shape (samples, ...), real values, and the worker's answer."""

    outputs: dict[str, NDArray[np.generic]]
    samples: int
    answer: Answer


def sample_count(available: int, macs: int, asked: int) -> int:
    """How many samples to simulate: what was asked for, or 20 to 100 by the model's size."""
    wanted = asked or int(min(_MOST, max(_FEWEST, _MACS // max(macs, 1))))
    return min(available, wanted)


def simulate(install: QnnInstall, artefact: Artefact, job: RunJob) -> Simulated:
    """Run a prefix of the samples through the context binary.

    Raises:
        ToolFailedError: the simulator crashed or hung, refused the binary, or left more to the CPU than allowed.

    """
    details = artefact.details
    count = sample_count(len(job.samples), int(details.get("macs", 0)), int(details.get("simulator_samples", 0)))
    inputs, outputs = (job.work_dir / name for name in ("inputs", "outputs"))
    for folder in (inputs, outputs):
        folder.mkdir(parents=True, exist_ok=True)
    for index, sample in enumerate(job.samples.take(count)):
        feeds = as_fed(sample, details.get("fed_as", {}))
        arrays: dict[str, Any] = {port.name: stored(feeds[port.source_name], port) for port in artefact.contract.inputs}
        np.savez(inputs / f"{index}.npz", **arrays)
    hexagon = Hexagon(int(details["hexagon_arch"]), int(details.get("soc_id", 0)), int(details.get("vtcm_mb", 0)))
    asked = Job(
        model=str((artefact.folder / str(details["context_model"])).resolve()),
        provider_options=htp_options(install, hexagon),
        result=str((job.work_dir / "answer.json").resolve()),
        samples=str(inputs.resolve()),
        outputs=str(outputs.resolve()),
        count=count,
        load_by_path=True,
        cpu_fallback=allowed_on_cpu(artefact) > 0,
        states=_states(artefact, job),
    )
    answer = _followed(asked, job.work_dir, count, float(details.get("simulator_timeout_s", 300)), job.progress)
    require_on_npu(answer, allowed_on_cpu(artefact))
    return Simulated(_collected(artefact, outputs, count), count, answer)


def _states(artefact: Artefact, job: RunJob) -> dict[str, Feedback]:
    takes = {port.source_name: port for port in artefact.contract.inputs}
    gives = {port.source_name: port for port in artefact.contract.outputs}
    return {
        takes[name].name: Feedback(gives[output].name, _code(gives[output]), _code(takes[name]))
        for output, name in job.states.items()
    }


def _code(port: PortSpec) -> Code:
    return Code(port.name, port.dtype, port.scale, port.zero_point)


def allowed_on_cpu(artefact: Artefact) -> int:
    """How many ops may run on the CPU: 0, unless the profile allowed some and the compiler left some."""
    return int(artefact.details.get("allow_cpu_nodes", 0)) if artefact.details.get("cpu_nodes") else 0


def require_on_npu(answer: Answer, allowed: int = 0) -> None:
    """`ToolFailedError` unless the session exists and all but ``allowed`` ops of it are on the NPU."""
    if answer.error:
        raise ToolFailedError(
            "The HTP simulator refused the context binary.",
            found=answer.error,
            remedy="Use the onnxruntime-qnn version that the manifest names.",
        )
    elsewhere = off_npu(answer, split=allowed > 0)
    if len(elsewhere) > allowed or PROVIDER not in answer.providers:
        raise ToolFailedError(
            "Part of the model is not on the NPU.",
            found="; ".join(f"{node.name} ({node.op_type}) on {node.provider}" for node in elsewhere)
            or "no node was placed at all",
            remedy="Replace these ops; what runs on the CPU proves nothing about the NPU. The option "
            f"allow_cpu_nodes={len(elsewhere)} accepts that, at the cost of a model that is no single DLC.",
        )


def _followed(job: Job, work_dir: Path, count: int, timeout_s: float, progress: Progress) -> Answer:
    ended: list[Answer] = []

    def steps() -> Iterator[int]:
        ended.append((yield from progress_of(job, work_dir.resolve(), timeout_s=timeout_s)))

    for _ in progress.track(steps(), what="HTP simulator", total=count):
        pass
    return ended[0]


def _collected(artefact: Artefact, folder: Path, count: int) -> dict[str, NDArray[np.generic]]:
    collected: dict[str, list[NDArray[Any]]] = {port.source_name: [] for port in artefact.contract.outputs}
    for index in range(count):
        with np.load(folder / f"{index}.npz", allow_pickle=False) as results:
            for port in artefact.contract.outputs:
                collected[port.source_name].append(real(results[port.name], port))
    return {name: np.stack(values) for name, values in collected.items()}
