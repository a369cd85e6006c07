"""Where the NPU's rounding departs from the Q/DQ simulation, layer by layer, on one sample."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgedeploy.exporters.snpe.golden import emulate, stored
from edgedeploy.exporters.snpe.prepare import as_fed
from edgedeploy.exporters.snpe.qnn.host import run_job
from edgedeploy.exporters.snpe.qnn.install import QnnInstall
from edgedeploy.exporters.snpe.qnn.job import Job
from edgedeploy.exporters.snpe.qnn.options import Hexagon, htp_options
from edgedeploy.targets.snpe.simulator import allowed_on_cpu, require_on_npu

if TYPE_CHECKING:
    from edgedeploy.interfaces import Artefact, RunJob


@dataclass(frozen=True)
class LayerError:
    """One quantized tensor, simulator against Q/DQ simulation, errors of all layers before it included.

    Attributes:
        tensor: its name in the graph.
        producer: the op that makes it.
        max_steps: largest difference, in quantization steps.
        share_above_2: share of values that differ by more than 2 steps.

    """

    tensor: str
    producer: str
    max_steps: float
    share_above_2: float

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def layer_errors(install: QnnInstall, artefact: Artefact, job: RunJob) -> tuple[LayerError, ...]:
    """Run the first sample with every quantized tensor as an output, on the simulator and as Q/DQ on the CPU."""
    if artefact.emulation is None:
        return ()
    model = onnx.load(artefact.folder / artefact.emulation)
    watched = _expose(model)
    work = (job.work_dir / "layers").resolve()
    for name in ("inputs", "outputs"):
        (work / name).mkdir(parents=True, exist_ok=True)
    path = work / "model.onnx"
    onnx.save(model, path)
    feeds = as_fed(job.samples[0], artefact.details.get("fed_as", {}))
    sample = {port.name: stored(feeds[port.source_name], port) for port in artefact.contract.inputs}
    arrays: dict[str, Any] = dict(sample)
    np.savez(work / "inputs" / "0.npz", **arrays)
    hexagon = Hexagon(int(artefact.details["hexagon_arch"]), int(artefact.details.get("soc_id", 0)))
    asked = Job(
        str(path),
        htp_options(install, hexagon),
        str(work / "answer.json"),
        samples=str(work / "inputs"),
        outputs=str(work / "outputs"),
        count=1,
        cpu_fallback=allowed_on_cpu(artefact) > 0,
    )
    answer = run_job(asked, work, timeout_s=1800)
    require_on_npu(answer, allowed_on_cpu(artefact))
    expected = emulate(path, [sample])[0]
    with np.load(work / "outputs" / "0.npz", allow_pickle=False) as simulated:
        return tuple(
            _compared(tensor, producer, (simulated[name].astype(np.float64) - expected[name]) / scale)
            for name, (tensor, producer, scale) in watched.items()
        )


def _expose(model: onnx.ModelProto) -> dict[str, tuple[str, str, float]]:
    """Make every dequantized run-time tensor an output; returns (tensor, producing op, scale) by output name."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    outputs = {value.name for value in graph.output}
    shapes = {info.name: info for info in onnx.shape_inference.infer_shapes(model).graph.value_info}
    watched: dict[str, tuple[str, str, float]] = {}
    seen: set[str] = set()
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] in constants or node.input[0] in seen:
            continue
        seen.add(node.input[0])
        quantizer = producers.get(node.input[0])
        if quantizer is None or quantizer.op_type != "QuantizeLinear" or node.output[0] not in shapes.keys() | outputs:
            continue
        source = producers.get(quantizer.input[0])
        scale = float(numpy_helper.to_array(constants[node.input[1]]))
        watched[node.output[0]] = (quantizer.input[0], source.op_type if source else "input", scale)
        if node.output[0] not in outputs:
            graph.output.append(shapes[node.output[0]])
    return watched


def _compared(tensor: str, producer: str, steps: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> LayerError:
    size = np.abs(np.rint(steps))
    return LayerError(tensor, producer, float(size.max(initial=0.0)), float((size > 2).mean()) if size.size else 0.0)
