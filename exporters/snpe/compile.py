"""Compile a Q/DQ graph with onnxruntime-qnn: op trace, context binary, DLC, in that order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgedeploy.errors import ToolFailedError, UnsupportedOpError
from edgedeploy.exporters.snpe.checks import BACKEND
from edgedeploy.exporters.snpe.qnn.host import errors_in, run_job
from edgedeploy.exporters.snpe.qnn.install import QnnInstall
from edgedeploy.exporters.snpe.qnn.job import Answer, Job, PlacedNode
from edgedeploy.exporters.snpe.qnn.options import Hexagon, context_config, dlc_options, htp_options, trace_options
from edgedeploy.exporters.snpe.qnn.trace import OpTrace, read_trace

PROVIDER = "QNNExecutionProvider"
#: What joins the CPU's part of a split graph to the NPU's; no op of the model.
SEAMS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Compiled:
    """What the compiler left.

    Attributes:
        dlcs: the DLC; where nodes were left to the CPU, one for each part on the NPU, and none is the model.
        context_model, context_binary: an EPContext ONNX file and the Hexagon binary that it names.
        trace: what became of each node.
        providers: number of nodes per ONNX Runtime provider.
        prepare_s: seconds that preparing for Hexagon took on this host.
        cpu_nodes: ops left to the CPU, at most as many as were allowed.

    """

    dlcs: tuple[Path, ...]
    context_model: Path
    context_binary: Path
    trace: OpTrace
    providers: dict[str, int]
    prepare_s: float
    cpu_nodes: tuple[PlacedNode, ...] = ()


def compile_graph(
    install: QnnInstall, model: Path, hexagon: Hexagon, verify: Hexagon, work_dir: Path, *, allow_cpu_nodes: int = 0
) -> Compiled:
    """Compile ``model``; every file lands under ``work_dir``.

    Args:
        hexagon: what the context binary is for.
        verify: the same with its SoC named: op validation follows the architecture, preparation the SoC.
        allow_cpu_nodes: so many ops may be left to the CPU; 0 disables CPU fallback.

    Raises:
        UnsupportedOpError: more nodes than allowed that QNN does not take, each with Qualcomm's reason.
        ToolFailedError: the compiler crashed, refused to prepare, or did not leave exactly one DLC.

    """
    traced, context, dlc = (work_dir / name for name in ("trace", "context", "dlc"))
    for folder in (traced, context, dlc):
        folder.mkdir(parents=True)
    context_model = context / "model_ctx.onnx"
    split = allow_cpu_nodes > 0
    answer = _session(
        model, htp_options(install, hexagon) | trace_options(traced), traced, context_config(context_model), split
    )
    trace = read_trace(traced)
    cpu_nodes = _require_placed(answer, trace, traced, allow_cpu_nodes)
    if verify != hexagon:
        checked = work_dir / "verify"
        verified = _session(model, htp_options(install, verify), checked, {}, split)
        _require_placed(verified, trace, checked, allow_cpu_nodes)
    binaries = sorted(context.glob("*.bin"))
    if len(binaries) != 1 or not context_model.exists():
        raise _incomplete(f"{len(binaries)} context binaries")
    _session(model, htp_options(install, verify) | dlc_options(install, dlc), dlc, {}, split)
    written = tuple(sorted(dlc.glob("*.dlc")))
    if len(written) != 1 and not (written and cpu_nodes):
        raise _incomplete(f"{len(written)} DLC files")
    return Compiled(written, context_model, binaries[0], trace, answer.providers, answer.create_s, cpu_nodes)


def _session(model: Path, options: dict[str, str], folder: Path, config: dict[str, str], split: bool) -> Answer:
    result = str((folder / "answer.json").resolve())
    job = Job(str(model.resolve()), options, result, config, cpu_fallback=split)
    return run_job(job, folder.resolve(), timeout_s=_TIMEOUT_S)


def off_npu(answer: Answer, *, split: bool) -> tuple[PlacedNode, ...]:
    """Nodes that are not on the NPU; where a split is allowed, without the `SEAMS` that it needs."""
    elsewhere = (node for node in answer.nodes if node.provider != PROVIDER)
    return tuple(node for node in elsewhere if not (split and node.op_type in SEAMS))


def _require_placed(answer: Answer, trace: OpTrace, folder: Path, allowed: int) -> tuple[PlacedNode, ...]:
    """The nodes that were left to the CPU, at most ``allowed``."""
    if answer.error:
        if trace.refusals:
            raise UnsupportedOpError(BACKEND, [(item.op_type, item.node, item.reason) for item in trace.refusals])
        raise ToolFailedError(
            "Qualcomm's compiler took every op and then could not prepare the graph for Hexagon.",
            found="; ".join(errors_in(folder / "log.txt")[-3:]) or answer.error,
            remedy="The model as a whole does not suit this Hexagon; try another target, or the Qualcomm SDK.",
        )
    elsewhere = off_npu(answer, split=allowed > 0)
    if len(elsewhere) > allowed or PROVIDER not in answer.providers:
        reasons = {refusal.node: refusal.reason for refusal in trace.refusals}
        told = [(node.op_type, node.name, reasons.get(node.name, f"placed on {node.provider}")) for node in elsewhere]
        raise UnsupportedOpError(BACKEND if not allowed else f"{BACKEND} (allow_cpu_nodes={allowed})", told)
    return elsewhere


def _incomplete(found: str) -> ToolFailedError:
    return ToolFailedError(
        "Qualcomm's compiler reported success and did not leave exactly one of each file.",
        found=found,
        remedy="Reinstall onnxruntime-qnn 2.7.0; other versions were not checked.",
    )
