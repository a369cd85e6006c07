"""Compile a Q/DQ graph with onnxruntime-qnn: op trace, context binary, DLC, in that order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgedeploy.errors import ToolFailedError, UnsupportedOpError
from edgedeploy.exporters.snpe.checks import BACKEND
from edgedeploy.exporters.snpe.qnn.host import errors_in, run_job
from edgedeploy.exporters.snpe.qnn.install import QnnInstall
from edgedeploy.exporters.snpe.qnn.job import Answer, Job
from edgedeploy.exporters.snpe.qnn.options import Hexagon, context_config, dlc_options, htp_options, trace_options
from edgedeploy.exporters.snpe.qnn.trace import OpTrace, read_trace

PROVIDER = "QNNExecutionProvider"
_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Compiled:
    """What the compiler left.

    Attributes:
        dlc: the DLC.
        context_model, context_binary: an EPContext ONNX file and the Hexagon binary that it names.
        trace: what became of each node.
        providers: number of nodes per ONNX Runtime provider.
        prepare_s: seconds that preparing for Hexagon took on this host.

    """

    dlc: Path
    context_model: Path
    context_binary: Path
    trace: OpTrace
    providers: dict[str, int]
    prepare_s: float


def compile_graph(install: QnnInstall, model: Path, hexagon: Hexagon, verify: Hexagon, work_dir: Path) -> Compiled:
    """Compile ``model``; every file lands under ``work_dir``.

    Args:
        hexagon: what the context binary is for.
        verify: the same with its SoC named: op validation follows the architecture, preparation the SoC.

    Raises:
        UnsupportedOpError: nodes that QNN does not take, each with Qualcomm's reason.
        ToolFailedError: the compiler crashed, refused to prepare, or did not leave exactly one DLC.

    """
    traced, context, dlc = (work_dir / name for name in ("trace", "context", "dlc"))
    for folder in (traced, context, dlc):
        folder.mkdir(parents=True)
    context_model = context / "model_ctx.onnx"
    answer = _session(
        model, htp_options(install, hexagon) | trace_options(traced), traced, context_config(context_model)
    )
    trace = read_trace(traced)
    _require_placed(answer, trace, traced)
    if verify != hexagon:
        checked = work_dir / "verify"
        _require_placed(_session(model, htp_options(install, verify), checked, {}), trace, checked)
    binaries = sorted(context.glob("*.bin"))
    if len(binaries) != 1 or not context_model.exists():
        raise _incomplete(f"{len(binaries)} context binaries")
    _session(model, htp_options(install, verify) | dlc_options(install, dlc), dlc, {})
    written = sorted(dlc.glob("*.dlc"))
    if len(written) != 1:
        raise _incomplete(f"{len(written)} DLC files")
    return Compiled(written[0], context_model, binaries[0], trace, answer.providers, answer.create_s)


def _session(model: Path, options: dict[str, str], folder: Path, config: dict[str, str]) -> Answer:
    job = Job(str(model.resolve()), options, str((folder / "answer.json").resolve()), config)
    return run_job(job, folder.resolve(), timeout_s=_TIMEOUT_S)


def _require_placed(answer: Answer, trace: OpTrace, folder: Path) -> None:
    if answer.error:
        if trace.refusals:
            raise UnsupportedOpError(BACKEND, [(item.op_type, item.node, item.reason) for item in trace.refusals])
        raise ToolFailedError(
            "Qualcomm's compiler took every op and then could not prepare the graph for Hexagon.",
            found="; ".join(errors_in(folder / "log.txt")[-3:]) or answer.error,
            remedy="The model as a whole does not suit this Hexagon; try another target, or the Qualcomm SDK.",
        )
    elsewhere = [node for node in answer.nodes if node.provider != PROVIDER]
    if elsewhere or not answer.nodes:
        raise UnsupportedOpError(
            BACKEND, [(node.op_type, node.name, f"placed on {node.provider}") for node in elsewhere]
        )


def _incomplete(found: str) -> ToolFailedError:
    return ToolFailedError(
        "Qualcomm's compiler reported success and did not leave exactly one of each file.",
        found=found,
        remedy="Reinstall onnxruntime-qnn 2.7.0; other versions were not checked.",
    )
