"""The TensorRT backend's exporter: explicit Q/DQ or float16 ONNX, gated by NVIDIA's own parser and builder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from edgedeploy.calibration.clipping import clipped_fraction
from edgedeploy.calibration.quantizer.quantize import quantize
from edgedeploy.calibration.repair import Repaired, repaired
from edgedeploy.calibration.schemes import TENSORRT
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.exporters.tensorrt.cache import CalibrationCache
from edgedeploy.exporters.tensorrt.float16 import to_float16
from edgedeploy.exporters.tensorrt.gate import GateReport, Ranges, check
from edgedeploy.exporters.tensorrt.names import renamed, renaming
from edgedeploy.exporters.tensorrt.opset import to_opset
from edgedeploy.exporters.tensorrt.package import EMULATION, ENGINE, MODEL, Legacy, write_package
from edgedeploy.exporters.tensorrt.placement import (
    CURES,
    Placement,
    by_weights,
    dense,
    gentle,
    large_only,
    with_attention,
    with_depthwise,
)
from edgedeploy.exporters.tensorrt.ranges import cache_scales
from edgedeploy.exporters.tensorrt.report import describe_gate, describe_size
from edgedeploy.exporters.tensorrt.settings import Settings, read_settings
from edgedeploy.exporters.tensorrt.size import estimate_engine_size
from edgedeploy.interfaces import Artefact, ExportContext, Json, Selection
from edgedeploy.precision import FLOAT16 as HALF
from edgedeploy.precision import INT8
from edgedeploy.tensors import Contract, PortSpec, TensorSpec

if TYPE_CHECKING:
    from edgedeploy.calibration.table import CalibrationTable
    from edgedeploy.graph.graph import Graph

FLOAT16 = "float16"


@dataclass(frozen=True)
class _Made:
    """One graph with NVIDIA's word on it; the engine lies at ``engine`` where the target takes it."""

    name: str
    model: onnx.ModelProto
    emulated: onnx.ModelProto
    gate: GateReport
    engine: Path
    placement: Placement | None = None
    clipped_fraction: float | None = None

    @property
    def size(self) -> int:
        """Bytes of the engine that TensorRT-RTX built."""
        return self.gate.engine_bytes or 0


class TensorRtExporter:
    """Yields INT8 placements whose engine is no larger than the float16 one, then the cures, then float16."""

    selection = Selection.FIRST_PASSING

    def candidates(self, context: ExportContext) -> Iterator[Artefact]:
        """Yield candidates; see `edgedeploy.interfaces.Exporter`."""
        return _Export(context).candidates()


class _Export:
    def __init__(self, context: ExportContext) -> None:
        self.context = context
        self.settings: Settings = read_settings(context.profile, context.options)
        self.graph: Graph = context.graph
        self.names: Mapping[str, str] = renaming(self.graph.model)
        self.ranges: Ranges = {
            self.names.get(name, name): shapes for name, shapes in self.settings.ranges(self.graph.inputs).items()
        }

    def candidates(self) -> Iterator[Artefact]:
        half = self._make(FLOAT16, self.graph.model)
        half.gate.require_accepted()
        tried: list[tuple[str, int]] = [(FLOAT16, half.size)]
        if self.settings.int8 and self.context.pinned != FLOAT16:
            yield from self._int8_candidates(half, tried)
        if self._wanted(FLOAT16):
            yield self._artefact(half, tried)

    def _int8_candidates(self, half: _Made, tried: list[tuple[str, int]]) -> Iterator[Artefact]:
        first = self._first_choice(half, tried)
        if first is None or first.placement is None:
            self.context.progress.note(
                f"{self.context.profile.name}: every INT8 engine is larger than the float16 one; float16 is taken"
            )
            return
        if self._wanted(first.name):
            yield self._artefact(first, tried)
        for kind in CURES:
            cure = gentle(self.graph, self._table, first.placement, kind)
            if not self._wanted(cure.name):
                continue
            made = self._quantized(cure)
            tried.append((cure.name, made.size))
            if self._fits(made, half):
                yield self._artefact(made, tried)

    def _first_choice(self, half: _Made, tried: list[tuple[str, int]]) -> _Made | None:
        """The placement with the most integer arithmetic among those that the float16 engine's size allows."""
        placements = [dense(self.graph), with_attention(self.graph), with_depthwise(self.graph)]
        made = [self._quantized(placement) for placement in placements if placement is not None]
        made = made[:1] + [item for item in made[1:] if item.model != made[0].model]  # masked attention stays float
        tried += [(item.name, item.size) for item in made]
        # Depthwise layers are padded: they and attention go integer only where that engine is the smallest.
        best = min((item for item in made if item.gate.accepted), key=lambda item: item.size, default=None)
        if best is None:
            made[0].gate.require_accepted()
        if best is not None and self._fits(best, half):
            return best
        return self._largest_that_fits(half, tried)

    def _largest_that_fits(self, half: _Made, tried: list[tuple[str, int]]) -> _Made | None:
        """Leave the fewest layers float, smallest first, with which the engine fits: by bisection."""
        order = by_weights(self.graph)
        found, low, high = None, 1, len(order)
        while low <= high:
            # The far end first: where even the largest layer alone does not pay, nothing does.
            count = (low + high) // 2 if found else high
            item = self._quantized(large_only(self.graph, order[:count]))
            tried.append((f"{item.name}, {count} layers float", item.size))
            if self._fits(item, half):
                found, high = item, count - 1
            elif found is None:
                return None
            else:
                low = count + 1
        return found

    def _fits(self, item: _Made, half: _Made) -> bool:
        # A TensorRT plan has other kernels than the engine measured here: only an engine that ships is held to it.
        return item.gate.accepted and (item.size <= half.size or not self.settings.rtx)

    def _wanted(self, name: str) -> bool:
        return self.context.pinned in (None, name)

    @cached_property
    def _subject(self) -> Repaired:
        """The graph that INT8 candidates quantize, and its calibration."""
        calibration, progress = self.context.calibration, self.context.progress
        return repaired(self.settings.repairs, self.graph, calibration, TENSORRT, progress)

    @property
    def _table(self) -> CalibrationTable:
        return self._subject.calibration.table_for(TENSORRT)

    def _quantized(self, placement: Placement) -> _Made:
        exclude = placement.exclude & {node.name for node in self.graph.model.graph.node}
        correct = self.settings.repairs.bias_correction
        model = quantize(self._subject.graph, self._table, placement.scheme, exclude=exclude, bias_correction=correct)
        made = self._make(placement.name, model, placement)
        return replace(made, clipped_fraction=clipped_fraction(model, self._table))

    def _make(self, name: str, model: onnx.ModelProto, placement: Placement | None = None) -> _Made:
        model = renamed(model, self.names)
        typed = to_float16(model)
        if self.settings.opset is not None:
            model = to_opset(model, self.settings.opset, self.context.profile.name)
        shipped = typed if self.settings.strongly_typed else model
        engine = self.context.work_dir / f"{name}.engine"
        gate = check(typed, compute_capability=self.settings.sm, ranges=self.ranges, engine=engine)
        if not self.settings.strongly_typed and gate.accepted:
            parsed = check(model, build=False)
            gate = gate if parsed.accepted else parsed
        return _Made(name, shipped, typed, gate, engine, placement)

    def _artefact(self, made: _Made, tried: list[tuple[str, int]]) -> Artefact:
        folder = self.context.work_dir / made.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        onnx.save(made.model, folder / MODEL)
        emulation = MODEL
        if not self.settings.strongly_typed:
            emulation = EMULATION
            onnx.save(made.emulated, folder / EMULATION)
        if self.settings.rtx:
            made.engine.replace(folder / ENGINE)
            size = Figure("size_mb", made.size / 1e6, Evidence.ARTEFACT, how="TensorRT-RTX engine")
        else:
            size = estimate_engine_size(made.emulated)
        int8 = made.placement is not None
        contract = self._contract()
        write_package(folder, self.settings, contract, self.ranges, int8=int8, legacy=self._legacy(int8))
        details: dict[str, Json] = {
            "route": "explicit Q/DQ" if int8 else FLOAT16,
            "strongly_typed": self.settings.strongly_typed,
            "tensorrt_version": self.settings.version,
            "compute_capability": self.settings.compute_capability,
            "gate": describe_gate(made.gate, self.settings),
            "engine_sizes_mb": describe_size(tried),
        }
        if made.placement is not None:
            details["placement"] = made.placement.why
            details["left_float_by_the_builder"] = self._broken_promises(made, made.placement)
            details["clipped_fraction"] = made.clipped_fraction
            details.update(self._subject.details)
        else:
            details["placement"] = self._why_float16(made, tried)
        if self.names:
            details["renamed"] = dict(self.names)
        return Artefact(
            candidate=made.name,
            folder=folder,
            main=Path(ENGINE if self.settings.rtx else MODEL),
            contract=contract,
            scheme="tensorrt" if int8 else FLOAT16,
            figures=(size,),
            details=details,
            emulation=Path(emulation),
            data_free=int8 and self.context.calibration.data_free,
            precision=INT8 if int8 else HALF,
        )

    def _broken_promises(self, made: _Made, placement: Placement) -> list[str]:
        """Nodes that were given in INT8 and that the builder computes in float; the user is told."""
        names = [node.node for node in made.gate.dense if not node.int8 and node.node not in placement.exclude]
        if names:
            self.context.progress.note(
                f"{made.name}: TensorRT computes these in float all the same: {', '.join(names)}"
            )
        return names

    def _why_float16(self, half: _Made, tried: list[tuple[str, int]]) -> str:
        if self.context.profile.quantization.scheme == FLOAT16:
            return f"{self.context.profile.name} has no INT8 arithmetic worth using: float16 only"
        if self.settings.rtx and len(tried) > 1 and all(size > half.size for _, size in tried[1:]):
            return "float16: every INT8 engine that was built is larger"
        return "float16"

    def _legacy(self, int8: bool) -> Legacy | None:
        if not int8 or not self.settings.has_calibrators:
            return None
        model = renamed(self.graph.model, self.names)
        if self.settings.opset is not None:
            model = to_opset(model, self.settings.opset, self.context.profile.name)
        scales = cache_scales(self.graph, self.context.calibration.table, self.names)
        return Legacy(model, CalibrationCache(self.settings.version, scales))

    def _contract(self) -> Contract:
        return Contract(tuple(map(self._port, self.graph.inputs)), tuple(map(self._port, self.graph.outputs)))

    def _port(self, tensor: TensorSpec) -> PortSpec:
        return PortSpec(tensor.name, self.names.get(tensor.name, tensor.name), tensor.shape, tensor.dtype)
