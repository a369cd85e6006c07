"""`TfliteMicroExporter`: int8 first, int16 activations as the cure where int8 fails its quality gate."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from edgedeploy.backend_options import Form, Option, read
from edgedeploy.calibration import repair
from edgedeploy.calibration.quantizer.carried import carried
from edgedeploy.calibration.repair import Repairs, repaired
from edgedeploy.device_profiles.schema import BUDGET_KEYS, DeviceProfile
from edgedeploy.errors import InputError
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.exporters.tflite_micro.checks import check_graph, check_memory
from edgedeploy.exporters.tflite_micro.codes import stored
from edgedeploy.exporters.tflite_micro.contract import contract_of
from edgedeploy.exporters.tflite_micro.estimates import KIB, flash_figure, kernel_margin, planned_ram_figure
from edgedeploy.exporters.tflite_micro.firmware.bundle import (
    GOLDEN_COUNT,
    FirmwareModel,
    complete_firmware,
    write_firmware,
)
from edgedeploy.exporters.tflite_micro.firmware.tree import find_tree
from edgedeploy.exporters.tflite_micro.lowering import WriterOptions
from edgedeploy.exporters.tflite_micro.memory import peak_memory
from edgedeploy.exporters.tflite_micro.rewrite import Rewritten, for_micro
from edgedeploy.exporters.tflite_micro.schemes import CANDIDATES, scheme_of
from edgedeploy.exporters.tflite_micro.vela import VelaResult, compile_for_npu
from edgedeploy.exporters.tflite_micro.writer import WrittenModel, write_tflite
from edgedeploy.interfaces import Artefact, ExportContext, Json, Rejection, RunResult, Selection
from edgedeploy.precision import INT8, INT16

if TYPE_CHECKING:
    from edgedeploy.calibration.dataset import Dataset
    from edgedeploy.calibration.session import Calibration

MODEL_FILE = "model.tflite"
VELA_FILE = "model_vela.tflite"
FIRMWARE = "firmware"


#: Every option with what it means.
OPTIONS: tuple[Option, ...] = (
    Option("per_tensor_fc", "true writes fully connected weights per tensor, for runtimes before 2024", Form.SWITCH),
    *repair.OPTIONS,
)


@dataclass(frozen=True)
class ExportOptions:
    """Checked options; see `OPTIONS`."""

    per_tensor_fc: bool = False
    repairs: Repairs = field(default_factory=Repairs)

    @classmethod
    def parse(cls, profile: DeviceProfile, given: Mapping[str, str]) -> ExportOptions:
        """Profile options overridden by the command line's; `InputError` for an unknown key or value."""
        chosen = read(OPTIONS, "TensorFlow Lite Micro", profile, given)
        return cls(chosen.get("per_tensor_fc", "false") == "true", Repairs.read(chosen))


class TfliteMicroExporter:
    """Writes a .tflite through own code and puts the firmware sources around it."""

    selection = Selection.FIRST_PASSING

    def candidates(self, context: ExportContext) -> Iterator[Artefact]:
        """Yield the int8 model; then, where a quality gate rejected it, int16 activations with int8 weights.

        Raises:
            UnsupportedOpError: before any work, for an op no kernel computes.
            InputError: for dynamic shapes, int64 inputs, an unknown option, a model larger than the device, or an
                incomplete tflite-micro tree.
        """
        find_tree()  # the runner links with it: a wrong one is said before the work
        options = ExportOptions.parse(context.profile, context.options)
        if context.pinned is not None and context.pinned not in CANDIDATES:
            raise InputError(
                f"The tflite_micro backend has no candidate {context.pinned!r}.",
                remedy=f"Choose one of: {', '.join(CANDIDATES)}.",
            )
        rewritten = for_micro(context.graph)
        check_graph(rewritten.graph.model)
        ready = _Ready(context, rewritten, _calibration(context, rewritten), options)
        if context.pinned in (None, "int8"):
            yield self._make(ready, "int8")
        if context.pinned == "int16x8":
            yield self._make(ready, "int16x8")
        elif context.pinned is None and _quality_failed(context.rejections):
            cure = self._cure(ready)
            if cure is not None:
                yield cure

    def finish(self, artefact: Artefact, profile: DeviceProfile, samples: Dataset, result: RunResult) -> None:
        """Put the golden vectors and the measured arena into the firmware; nothing, where the interpreter was not run.

        The runner did the same to a copy, to compile and emulate it: both come from these codes and this arena.
        """
        if "arena_bytes" not in result.details:
            return
        contract = artefact.contract
        taken = list(samples.take(GOLDEN_COUNT))
        inputs = [stored(port, [sample[port.source_name] for sample in taken]) for port in contract.inputs]
        outputs = [stored(port, list(result.outputs[port.source_name][: len(taken)])) for port in contract.outputs]
        measured = None if profile.hardware.accelerator else result.details["arena_bytes"]
        arena = None if measured is None else (int(measured), kernel_margin(profile))
        name = str(artefact.details.get("model_name", "model"))
        complete_firmware(artefact.folder / FIRMWARE, name, arena, inputs, outputs)

    def _cure(self, ready: _Ready) -> Artefact | None:
        """The int16 candidate, where this model has one: a kernel may be missing or the device too small."""
        try:
            return self._make(ready, "int16x8")
        except InputError as error:
            ready.context.progress.note(f"no int16x8 candidate: {error.what} {error.found}")
            return None

    def _make(self, ready: _Ready, candidate: str) -> Artefact:
        from edgedeploy.calibration.clipping import clipped_fraction
        from edgedeploy.calibration.quantizer import quantize

        context, scheme = ready.context, scheme_of(candidate)
        repairs = ready.options.repairs
        higher = ready.rewritten.higher | carried(ready.rewritten.graph.model, context.states)
        subject = repaired(repairs, ready.rewritten.graph, ready.calibration, scheme, context.progress, higher)
        table = subject.calibration.table_for(scheme, higher)
        correct = repairs.bias_correction
        quantized = quantize(subject.graph, table, scheme, higher=higher, bias_correction=correct)
        written = write_tflite(quantized, WriterOptions(per_channel_fc=not ready.options.per_tensor_fc))
        check_memory(written, context.profile)
        folder = context.work_dir / candidate
        folder.mkdir(parents=True)
        (folder / MODEL_FILE).write_bytes(written.content)
        vela = self._compiled(context, folder)
        contract = contract_of(written)
        firmware = FirmwareModel.of(
            context.model.name,
            written,
            contract,
            context.profile,
            content=None if vela is None else vela.path.read_bytes(),
            peak_bytes=None if vela is None else round(vela.sram_kb * KIB),
            labels=context.labels,
            preprocessing=context.preprocessing,
        )
        write_firmware(folder / FIRMWARE, firmware)
        return Artefact(
            candidate=candidate,
            folder=folder,
            main=Path(MODEL_FILE),
            contract=contract,
            scheme=scheme.name,
            figures=_figures(written, firmware, vela),
            details={
                "model_name": context.model.name,
                "clipped_fraction": clipped_fraction(quantized, table),
                **subject.details,
                **_details(written, firmware, vela),
            },
            data_free=context.calibration.data_free,
            precision=INT8 if scheme.activation.bits == 8 else INT16,
        )

    def _compiled(self, context: ExportContext, folder: Path) -> VelaResult | None:
        """The model for the device's NPU beside the plain one, where it has an NPU."""
        accelerator = context.profile.hardware.accelerator
        if not accelerator.startswith("ethos-u"):
            return None
        scratch = context.work_dir / f"{folder.name}-vela"
        result = compile_for_npu(folder / MODEL_FILE, accelerator, scratch)
        return replace(result, path=result.path.rename(folder / VELA_FILE))


def _figures(written: WrittenModel, firmware: FirmwareModel, vela: VelaResult | None) -> tuple[Figure, ...]:
    """What the files say; the runner's host arena replaces the planned RAM, except on an NPU."""
    size = len(firmware.content)
    name = MODEL_FILE if vela is None else VELA_FILE
    known = (
        Figure("size_mb", size / 1e6, Evidence.ARTEFACT, f"bytes of {name}"),
        flash_figure(size, len(firmware.operators)),
    )
    if vela is not None:
        return (*known, *vela.figures())
    return (*known, planned_ram_figure(peak_memory(written.model).size_bytes, written.model))


def _details(written: WrittenModel, firmware: FirmwareModel, vela: VelaResult | None) -> dict[str, Json]:
    counts: dict[str, int] = {}
    for operator in written.model.operators:
        counts[operator.builtin] = counts.get(operator.builtin, 0) + 1
    peak = peak_memory(written.model)
    details: dict[str, Json] = {
        "operators": dict(sorted(counts.items())),
        "peak_activation_bytes": peak.size_bytes,
        "peak_operator": peak.operator,
        "firmware_sha256": hashlib.sha256(firmware.content).hexdigest(),
        "ai_edge_litert": metadata.version("ai-edge-litert"),
    }
    if vela is not None:
        details["vela"] = {
            "version": metadata.version("ethos-u-vela"),
            "npu_operators": vela.npu_operators,
            "cpu_operators": vela.cpu_operators,
            "sram_kb": vela.sram_kb,
            "flash_kb": vela.flash_kb,
            "cycles": vela.cycles,
        }
    return details


@dataclass(frozen=True)
class _Ready:
    """What every candidate is made from."""

    context: ExportContext
    rewritten: Rewritten
    calibration: Calibration
    options: ExportOptions


def _calibration(context: ExportContext, rewritten: Rewritten) -> Calibration:
    """The shared calibration, or, where rewriting made other tensors, one of the same data for those."""
    from edgedeploy.calibration.session import Calibration

    shared = context.calibration
    if not rewritten.changed:
        return shared
    return Calibration(rewritten.graph, shared.data, shared.options, progress=context.progress)


def _quality_failed(rejections: list[Rejection]) -> bool:
    """True where something other than a budget failed: wider activations cannot cure size, memory or time."""
    return any(gate not in BUDGET_KEYS for rejection in rejections for gate in rejection.failed_gates)
