"""Where onnxruntime-qnn is, or how to get it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgedeploy.errors import MissingToolError

PACKAGE = "onnxruntime-qnn"
INSTALL = (
    "either `pip install 'edgedeploy[snapdragon]'` (onnxruntime-qnn: x86-64 Linux with glibc 2.35 or newer, free of "
    "charge under Qualcomm's licence), or install the Qualcomm AI Runtime SDK from "
    "https://qpm.qualcomm.com and set QAIRT_SDK_ROOT to its folder"
)
LICENCE = (
    "onnxruntime-qnn contains Qualcomm AI Runtime libraries under Qualcomm's own licence (Qualcomm_LICENSE.pdf in the "
    "package): free to use for developing applications, not to be redistributed on their own. A bundle holds what "
    "they produced, never the libraries."
)


@dataclass(frozen=True)
class QnnInstall:
    """One installed onnxruntime-qnn: its version and the folder of its libraries."""

    version: str
    folder: Path

    @property
    def ir_library(self) -> Path:
        """The backend that writes DLC files."""
        return self.folder / "libQnnIr.so"

    @property
    def htp_library(self) -> Path:
        """The Hexagon compiler and, on x86, its simulator."""
        return self.folder / "libQnnHtp.so"


def find_qnn() -> QnnInstall | None:
    """Find onnxruntime-qnn without importing it; ``None`` where it or its host libraries are not installed."""
    spec = importlib.util.find_spec("onnxruntime_qnn")
    if spec is None or spec.origin is None:
        return None
    try:
        install = QnnInstall(version(PACKAGE), Path(spec.origin).parent)
    except PackageNotFoundError:
        return None
    return install if install.ir_library.exists() and install.htp_library.exists() else None


def require_qnn() -> QnnInstall:
    """Find onnxruntime-qnn or raise `MissingToolError`, which says how to get it."""
    install = find_qnn()
    if install is None:
        raise MissingToolError("Qualcomm's compiler and HTP simulator", install=f"Install one: {INSTALL}.")
    return install
