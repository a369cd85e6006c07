"""Provider options for the three things asked of QNN: run, write a DLC, build a context binary.

Names and meanings: https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html .
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgedeploy.exporters.snpe.qnn.install import QnnInstall


@dataclass(frozen=True)
class Hexagon:
    """The NPU to compile for.

    Attributes:
        arch: Hexagon version, 68 for V68.
        soc_model: Qualcomm's number of the SoC; 0 leaves it out, which public reports advise for the 888.
        vtcm_mb: the tightly coupled memory to plan for, 0 for the architecture's usual size.
    """

    arch: int
    soc_model: int = 0
    vtcm_mb: int = 0

    def options(self) -> dict[str, str]:
        """As provider options."""
        chosen = {"htp_arch": str(self.arch)}
        if self.soc_model:
            chosen["soc_model"] = str(self.soc_model)
        if self.vtcm_mb:
            chosen["vtcm_mb"] = str(self.vtcm_mb)
        return chosen


def htp_options(install: QnnInstall, hexagon: Hexagon) -> dict[str, str]:
    """Run on the HTP; the boundary's Quantize and Dequantize stay on it as well."""
    return {"backend_path": str(install.htp_library), "offload_graph_io_quantization": "0", **hexagon.options()}


def dlc_options(install: QnnInstall, folder: Path) -> dict[str, str]:
    """Also write the graph as a DLC into ``folder`` when the session is created; such a session must not run."""
    return {
        "dump_qnn_ir_dlc": "1",
        "dump_qnn_ir_dlc_dir": str(folder.resolve()),
        "qnn_ir_backend_path": str(install.ir_library),
    }


def trace_options(folder: Path) -> dict[str, str]:
    """Also write ``qnn_op_trace.json``: which node became what, and why one was refused."""
    return {"enable_framework_op_trace": "1", "framework_op_trace_dir": str(folder.resolve())}


def context_config(model: Path) -> dict[str, str]:
    """Session entries that leave an EPContext model at ``model`` and its binary beside it."""
    return {
        "ep.context_enable": "1",
        "ep.context_file_path": str(model.resolve()),
        "ep.context_embed_mode": "0",
    }
