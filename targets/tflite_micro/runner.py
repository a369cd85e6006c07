"""`TfliteMicroRunner`: the real interpreter on this host, or a board that reports over a serial line."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from edgedeploy.errors import InputError
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.exporters.tflite_micro.codes import real, stored
from edgedeploy.exporters.tflite_micro.estimates import kernel_margin, measured_ram_figure
from edgedeploy.exporters.tflite_micro.firmware.bundle import complete_firmware
from edgedeploy.exporters.tflite_micro.firmware.check import COMPILER, check_sources
from edgedeploy.exporters.tflite_micro.firmware.cores import CORES
from edgedeploy.exporters.tflite_micro.firmware.tree import RuntimeTree, find_tree
from edgedeploy.interfaces import Artefact, Json, RunJob, RunResult, cannot_loop
from edgedeploy.targets.tflite_micro.emulation import check_firmware
from edgedeploy.targets.tflite_micro.listing import operator_listing
from edgedeploy.targets.tflite_micro.simulator import Feedback, Loop, simulate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedeploy.device_profiles.schema import DeviceProfile
    from edgedeploy.tensors import PortSpec

FIRMWARE = "firmware"

#: Host-sized runs stay short: samples beyond this many are not run.
SAMPLES_LIMIT = 1000


class TfliteMicroRunner:
    """Runs the saved .tflite; proves numerics and the arena, says nothing of latency."""

    def run(self, artefact: Artefact, job: RunJob) -> RunResult:
        """Run over a prefix of the samples.

        Raises:
            MissingToolError: tflite-micro (or, for a board, pyserial) is not installed.
            ToolFailedError: the interpreter or the board failed.
            InputError: for a device that this backend cannot reach, or an incomplete tflite-micro tree.
        """
        if job.device and job.states:
            return cannot_loop("firmware on a board")
        if job.device.startswith("serial:"):
            from edgedeploy.targets.tflite_micro.board import run_on_board

            return run_on_board(artefact, job)
        if job.device:
            raise InputError(
                f"A microcontroller cannot be reached as {job.device!r}.",
                remedy="Use --device serial:PORT with the bundle's firmware on the board, or leave --device out.",
            )
        return _looped(artefact, job) if job.states else self._simulated(artefact, job)

    def _simulated(self, artefact: Artefact, job: RunJob) -> RunResult:
        taken = list(job.samples.take(SAMPLES_LIMIT))
        inputs = [stored(port, [sample[port.source_name] for sample in taken]) for port in artefact.contract.inputs]
        ports = artefact.contract.outputs
        found = simulate(artefact.path, inputs, len(ports), job.work_dir / "tflite-micro")
        outputs = {port.source_name: real(port, codes) for port, codes in zip(ports, found.outputs, strict=True)}
        figures: tuple[Figure, ...] = ()
        notes = ["TFLite Micro's reference kernels on this host: exact numerics, no latency."]
        margin = kernel_margin(job.profile)
        arena = None
        if job.profile.hardware.accelerator:
            notes.append("The NPU's own file cannot be run here: these numerics are those of the plain model.")
        elif found.arena_bytes is not None:
            arena = (found.arena_bytes, margin)
            figures = (measured_ram_figure(*arena),)
        name = str(artefact.details.get("model_name", "model"))
        firmware: dict[str, Json] = {}
        if job.may_build and (artefact.folder / FIRMWARE).is_dir():
            # A copy: completing what ships is the exporter's.
            folder = Path(shutil.copytree(artefact.folder / FIRMWARE, job.work_dir / FIRMWARE))
            complete_firmware(folder, name, arena, inputs, found.outputs)
            tree = find_tree()
            compiled = compiled_sizes(folder, job.profile, tree)
            linked = check_firmware(folder, artefact, job, tree)
            notes.append(linked.note)
            figures = linked.figures or figures
            firmware = {
                "firmware_compiled": compiled or "not compiled: no cross compiler for this core here",
                "firmware_emulated": linked.details or linked.note,
            }
        return RunResult(
            outputs,
            Evidence.SIMULATOR,
            figures,
            tuple(notes),
            {
                "arena_bytes": found.arena_bytes,
                "recorded_arena_bytes": found.recorded_bytes,
                "allocations": found.allocations,
                "operators": operator_listing(artefact.path),
                **firmware,
                "tflite_micro": metadata.version("tflite-micro"),
            },
        )


def _looped(artefact: Artefact, job: RunJob) -> RunResult:
    """The samples as one sequence: numerics only."""
    taken = list(job.samples.take(SAMPLES_LIMIT))
    ports = artefact.contract.outputs
    inputs = [stored(port, [sample[port.source_name] for sample in taken]) for port in artefact.contract.inputs]
    back = tuple(
        Feedback(_place(ports, output), _place(artefact.contract.inputs, name)) for output, name in job.states.items()
    )
    work = job.work_dir / "tflite-micro"
    found = simulate(artefact.path, inputs, len(ports), work, find_arena=False, loop=Loop(artefact.contract, back))
    outputs = {port.source_name: real(port, codes) for port, codes in zip(ports, found.outputs, strict=True)}
    return RunResult(outputs, Evidence.SIMULATOR)


def _place(ports: Sequence[PortSpec], name: str) -> int:
    return [port.source_name for port in ports].index(name)


def compiled_sizes(folder: Path, profile: DeviceProfile, tree: RuntimeTree | None = None) -> dict[str, int] | None:
    """Bytes of the compiled model sources; ``None`` where no cross compiler for the core is installed.

    With a tflite-micro tree, the sources that include its headers are compiled too.

    Raises:
        ToolFailedError: the compiler refused a generated source.
    """
    if shutil.which(COMPILER) is None or profile.hardware.cpu not in CORES:
        return None
    found = check_sources(folder, profile.hardware.cpu, tree)
    return {"text": found.text, "data": found.data, "bss": found.bss}
