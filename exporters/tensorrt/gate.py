"""NVIDIA's own parser and builder as the gate: lint, parse, build, and count what became INT8."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from edgedeploy.errors import ToolFailedError, UnsupportedOpError
from edgedeploy.exporters.tensorrt.bindings import tensorrt_rtx
from edgedeploy.exporters.tensorrt.layers import EngineLayer, NodePrecision, node_precisions, parse_layers
from edgedeploy.exporters.tensorrt.lint import lint
from edgedeploy.exporters.tensorrt.worker import NODE_MARK

#: name -> (smallest, usual, largest) shape of a dynamic input.
Ranges = Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]

BACKEND = "TensorRT"
_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Refusal:
    """One reason not to take the graph; ``node`` and ``op_type`` are empty where NVIDIA named none."""

    stage: str
    node: str
    op_type: str
    reason: str


@dataclass(frozen=True)
class GateReport:
    """What NVIDIA's tools said of one graph.

    Attributes:
        accepted: parsed whole and, where asked, built.
        refusals: why not; a crash of the tool is one as well.
        version: of TensorRT-RTX.
        compute_capability: the SM that the build was for ("SM86").
        engine_bytes: size of the built engine, ``None`` where none was built.
        network_layers: layers of the parsed network.
        layers, nodes: what the builder made of it, empty where nothing was built.
    """

    accepted: bool
    refusals: tuple[Refusal, ...]
    version: str
    compute_capability: str
    engine_bytes: int | None = None
    network_layers: int = 0
    layers: tuple[EngineLayer, ...] = ()
    nodes: tuple[NodePrecision, ...] = ()

    @property
    def dense(self) -> tuple[NodePrecision, ...]:
        """Dense convolutions and products with a constant operand: those that INT8 promises to serve."""
        return tuple(n for n in self.nodes if not n.depthwise and not n.dynamic and n.op_type != "ConvTranspose")

    @property
    def int8_share(self) -> float | None:
        """Share of `dense` nodes with both operands int8; ``None`` where there are none."""
        return sum(node.int8 for node in self.dense) / len(self.dense) if self.dense else None

    def require_accepted(self) -> None:
        """Raise `UnsupportedOpError` with NVIDIA's own words where the graph was refused."""
        if self.accepted:
            return
        raise UnsupportedOpError(
            f"{BACKEND} ({self.refusals[0].stage} by TensorRT-RTX {self.version})",
            [(refusal.op_type or "graph", refusal.node, refusal.reason) for refusal in self.refusals],
        )


def check(
    model: onnx.ModelProto,
    *,
    compute_capability: str = "SM86",
    ranges: Ranges | None = None,
    build: bool = True,
    engine: Path | None = None,
) -> GateReport:
    """Lint, parse and build ``model`` in a process of its own, so that a crash of the tool is an answer.

    Args:
        model: Q/DQ or float graph with every node named.
        compute_capability: target of the build, one of TensorRT-RTX's names ("SM75" ... "SM121").
        ranges: shapes for dynamic inputs.
        build: also build; a pattern may parse and then fail here.
        engine: where to write the engine.

    Raises:
        MissingToolError: where TensorRT-RTX is not installed.
        ToolFailedError: where the worker broke for a reason that is not the graph's.
    """
    version = str(tensorrt_rtx().__version__)
    found = lint(model)
    if found:
        refusals = tuple(Refusal("lint", item.node, item.op_type, item.reason) for item in found)
        return GateReport(False, refusals, version, compute_capability)
    with tempfile.TemporaryDirectory(prefix="edgedeploy-trt-") as folder:
        request = Path(folder) / "request.json"
        onnx.save(model, Path(folder) / "model.onnx")
        request.write_text(
            json.dumps(
                {
                    "onnx": str(Path(folder) / "model.onnx"),
                    "compute_capability": compute_capability,
                    "ranges": {name: list(map(list, shapes)) for name, shapes in (ranges or {}).items()},
                    "build": build,
                    "engine": str(engine) if engine else "",
                }
            )
        )
        answer = _run(request)
    if "crash" in answer:
        return GateReport(False, (answer["crash"],), version, compute_capability)
    layers = parse_layers(answer.get("layers", ()))
    return GateReport(
        accepted=answer["accepted"],
        refusals=tuple(
            Refusal(answer["stage"], error["node"], error["op"], error["reason"]) for error in answer["errors"]
        )
        or (() if answer["accepted"] else (Refusal(answer["stage"], "", "", "refused without a reason"),)),
        version=answer["version"],
        compute_capability=compute_capability,
        engine_bytes=answer.get("engine_bytes"),
        network_layers=answer.get("network_layers", 0),
        layers=layers,
        nodes=node_precisions(model, layers) if layers else (),
    )


def _run(request: Path) -> dict[str, Any]:
    # -P keeps the current folder, which may be the user's, off the import path.
    argv = [sys.executable, "-P", "-m", "edgedeploy.exporters.tensorrt.worker", str(request)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ToolFailedError(
            "TensorRT-RTX did not finish.",
            found=f"still running after {_TIMEOUT_S:.0f} s",
            remedy="Try a smaller model, or build on the device.",
        ) from error
    parsing = [line[len(NODE_MARK) :] for line in done.stderr.splitlines() if line.startswith(NODE_MARK)]
    if done.returncode < 0:
        name, _, op_type = (parsing[-1] if parsing else "").partition(" [")
        reason = f"NVIDIA's {'parser' if name else 'builder'} crashed here ({signal.Signals(-done.returncode).name})"
        return {"crash": Refusal("parse" if name else "build", name, op_type.rstrip("]"), reason)}
    if done.returncode:
        raise ToolFailedError("TensorRT-RTX failed to start.", found=done.stderr.strip()[-2000:])
    answer: dict[str, Any] = json.loads(request.with_name("answer.json").read_text())
    return answer
