"""Collect one candidate's files into its folder and describe it for the manifest."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.calibration.schemes import QNN_A16W8
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.exporters.snpe.android.write import write_android
from edgedeploy.exporters.snpe.boundary import Boundary
from edgedeploy.exporters.snpe.compile import Compiled
from edgedeploy.exporters.snpe.prepare import Prepared
from edgedeploy.exporters.snpe.readback import ReadBack
from edgedeploy.exporters.snpe.settings import Settings
from edgedeploy.exporters.snpe.target_proof import TargetProof
from edgedeploy.interfaces import Artefact
from edgedeploy.precision import INT8, INT16
from edgedeploy.tensors import Contract, PortSpec

if TYPE_CHECKING:
    from edgedeploy.exporters.snpe.golden import Sample

DLC = Path("model.dlc")
EMULATION = Path("model_qdq.onnx")
CONTEXT_MODEL = Path("model_ctx.onnx")
UNSTABLE = {
    str(DLC): "UTC timestamps in its records dlc.metadata and dlc.metadata.history, written by Qualcomm's tools"
}


@dataclass(frozen=True)
class Built:
    """What one candidate is made of.

    Attributes:
        toolchain: name and version of what wrote the DLC.
        dlc: the DLC, wherever it lies; ``None`` where nodes were left to the CPU: the ONNX file of the context
            binary is the model then.
        compiled: the rest of what onnxruntime-qnn left; ``None`` for the SDK.

    """

    candidate: str
    scheme: str
    qdq: Path
    ports: tuple[tuple[Boundary, ...], tuple[Boundary, ...]]
    notes: tuple[str, ...] = ()
    toolchain: str = ""
    dlc: Path | None = None
    compiled: Compiled | None = None
    proof: TargetProof | None = None
    read_back: ReadBack | None = None


def collect(
    built: Built, folder: Path, prepared: Prepared, settings: Settings, samples: Sequence[Sample], data_free: bool
) -> Artefact:
    """Move everything that ships into ``folder`` and return the artefact."""
    folder.mkdir(parents=True)
    if built.dlc is not None:
        shutil.copyfile(built.dlc, folder / DLC)
    shutil.copyfile(built.qdq, folder / EMULATION)
    if built.compiled is not None:
        shutil.copyfile(built.compiled.context_model, folder / CONTEXT_MODEL)
        shutil.copyfile(built.compiled.context_binary, folder / built.compiled.context_binary.name)
    write_android(folder / "android", built, settings, samples, folder / EMULATION)
    main = DLC if built.dlc is not None else CONTEXT_MODEL
    shipped = [main, Path(built.compiled.context_binary.name)] if built.compiled and main == CONTEXT_MODEL else [main]
    size = sum((folder / name).stat().st_size for name in shipped)
    return Artefact(
        candidate=built.candidate,
        folder=folder,
        main=main,
        contract=Contract(*(tuple(_port(port) for port in ports) for ports in built.ports)),
        scheme=built.scheme,
        figures=(Figure("size_mb", size / 1e6, Evidence.ARTEFACT, how=" + ".join(map(str, shipped))),),
        details=_details(built, prepared, settings),
        emulation=EMULATION,
        unstable=UNSTABLE if main == DLC else {},
        data_free=data_free,
        precision=INT16 if built.scheme == QNN_A16W8.name else INT8,
    )


def _port(port: Boundary) -> PortSpec:
    return PortSpec(port.source, port.name, port.shape, port.dtype, scale=port.scale, zero_point=port.zero_point)


def _details(built: Built, prepared: Prepared, settings: Settings) -> Mapping[str, Any]:
    details: dict[str, Any] = {
        "toolchain": built.toolchain,
        "hexagon_arch": settings.hexagon.arch,
        "soc_id": settings.soc_id,
        "vtcm_mb": settings.hexagon.vtcm_mb,
        "macs": prepared.graph.macs,
        "simulator_samples": settings.simulator_samples,
        "simulator_timeout_s": settings.simulator_timeout_s,
        "rewrites": dict(prepared.rewrites),
        "fed_as": dict(prepared.fed),
        **prepared.repairs,
        "read_back": asdict(built.read_back) if built.read_back else {},
    }
    if built.notes:
        details["notes"] = list(built.notes)
    if settings.layer_errors:
        details["layer_errors"] = True
    if built.compiled is not None:
        details["context_model"] = str(CONTEXT_MODEL)
        details["context_binary"] = built.compiled.context_binary.name
        details["nodes_per_provider"] = built.compiled.providers
        details["ops"] = built.compiled.trace.mapped
        details["allow_cpu_nodes"] = settings.allow_cpu_nodes
        details["cpu_nodes"] = [f"{node.name} ({node.op_type})" for node in built.compiled.cpu_nodes]
    if built.proof is not None:
        details["compiled_for"] = asdict(built.proof)
        details["minimum_qairt_runtime"] = built.proof.runtime
    return details
