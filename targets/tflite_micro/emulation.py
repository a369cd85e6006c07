"""`check_firmware`: build the bundle's firmware, run it on the emulated board, and say what that shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgedeploy.errors import MissingToolError, ToolFailedError
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.exporters.tflite_micro.estimates import KIB, STACK_KB
from edgedeploy.exporters.tflite_micro.firmware.boards import emulated_board
from edgedeploy.exporters.tflite_micro.firmware.build import LinkedFirmware, build_emulated
from edgedeploy.exporters.tflite_micro.firmware.bundle import shipped_arena
from edgedeploy.exporters.tflite_micro.firmware.cores import CORES
from edgedeploy.exporters.tflite_micro.firmware.tree import GIVE_TREE, RuntimeTree
from edgedeploy.exporters.tflite_micro.ir import ALIGNMENT
from edgedeploy.interfaces import Artefact, Json, RunJob
from edgedeploy.targets.tflite_micro.board import result_of
from edgedeploy.targets.tflite_micro.emulator import EmulatedRun, emulate, find_emulator


@dataclass(frozen=True)
class FirmwareCheck:
    """What the emulated firmware showed; only a sentence where it was not run."""

    note: str
    figures: tuple[Figure, ...] = ()
    details: dict[str, Json] = field(default_factory=dict)


def check_firmware(folder: Path, artefact: Artefact, job: RunJob, tree: RuntimeTree | None) -> FirmwareCheck:
    """Link the firmware in ``folder``, which holds its golden vectors, and run it where that is possible here.

    Raises:
        ToolFailedError: the firmware does not build, does not end, or computes other outputs than the interpreter.
    """
    board, cpu = emulated_board(job.profile), job.profile.hardware.cpu
    if not board or cpu not in CORES:
        return FirmwareCheck(f"Linked firmware: not measured: QEMU has no board for {job.profile.name}.")
    if tree is None:
        return FirmwareCheck(f"Linked firmware: not measured: no tflite-micro sources. {GIVE_TREE}.")
    try:
        find_emulator()
        job.progress.note(f"linking the firmware with {tree.root} for the emulated {board}")
        linked = build_emulated(folder, tree, job.work_dir / "firmware-build")
        run = emulate(linked.elf, board)
    except MissingToolError as error:
        return FirmwareCheck(f"Linked firmware: not measured: {error.what} {error.remedy}.")
    place = f"emulated {board}"
    result_of(run.report, artefact, job, Evidence.SIMULATOR, place)
    worst = max(record.largest_difference for record in run.report.golden)
    if not run.report.passed:
        raise ToolFailedError(
            f"The firmware on the {place} computes other outputs than the interpreter on this host.",
            found=f"they differ by up to {worst} codes, with {tree.kernels} kernels",
            remedy="A kernel of this tflite-micro tree is wrong or of another version; try its reference kernels.",
        )
    arena = smallest_arena(linked.elf, board, run)
    measured, reserved = shipped_arena(folder)
    if arena > reserved:
        raise ToolFailedError(
            f"The arena in the firmware is too small on the {place}.",
            found=f"{reserved} bytes, where {tree.kernels} kernels need {arena}",
            remedy=f"Set hardware.kernel_margin to {arena / (measured or reserved) - 1:.2f} or more in the profile.",
        )
    instructions = max(record.instructions for record in run.report.golden)
    details: dict[str, Json] = {
        "board": board,
        "kernels": tree.kernels,
        "golden_vectors": len(run.report.golden),
        "largest_difference": worst,
        "arena_used_bytes": run.report.arena_used_bytes,
        "smallest_arena_bytes": arena,
        "arena_size_bytes": reserved,
        "stack_bytes": run.stack_bytes,
        "flash_bytes": linked.flash_bytes,
        "variables_bytes": linked.static_ram_bytes - (run.report.arena_size_bytes or 0),
        "instructions": instructions,
    }
    note = f"Firmware on the {place}, {tree.kernels} kernels: all golden vectors passed; instructions are not cycles."
    return FirmwareCheck(note, _figures(linked, run, arena, instructions, place, tree.kernels), details)


def smallest_arena(elf: Path, board: str, run: EmulatedRun) -> int:
    """The smallest arena, in steps of 16 bytes, in which the golden vectors pass.

    It is more than what the interpreter records, ``run.report.arena_used_bytes``, where planning takes memory that it
    gives back.
    """
    used, size = run.report.arena_used_bytes or 0, run.report.arena_size_bytes or 0
    # Nearly always what is recorded is enough and a step less is not: these two are tried first.
    low, high = used // ALIGNMENT - 2, size // ALIGNMENT
    middle = -(-used // ALIGNMENT)
    while high - low > 1:
        if _works(elf, board, middle * ALIGNMENT):
            high = middle
        else:
            low = middle
        middle = (low + high) // 2
    return high * ALIGNMENT


def _works(elf: Path, board: str, arena_bytes: int) -> bool:
    try:
        return emulate(elf, board, arena_bytes=arena_bytes).report.passed is True
    except ToolFailedError:
        return False


def _figures(
    linked: LinkedFirmware, run: EmulatedRun, arena: int, instructions: int, place: str, kernels: str
) -> tuple[Figure, ...]:
    variables = linked.static_ram_bytes - (run.report.arena_size_bytes or 0)
    stack = max(STACK_KB * KIB, run.stack_bytes)
    ram_kb = (arena + variables + stack) / KIB
    parts = f"{arena / KIB:.1f} KB smallest arena + {variables / KIB:.1f} KB variables + {stack / KIB:.3g} KB stack"
    flash_how = f"linked with {kernels} kernels for the {place}; the test's printf included, its vectors left out"
    figures = [
        Figure("ram_kb", ram_kb, Evidence.SIMULATOR, f"{parts} on the {place}, {kernels} kernels"),
        Figure("flash_kb", linked.flash_bytes / KIB, Evidence.ARTEFACT, flash_how),
    ]
    if instructions:
        how = f"one inference on the {place}, {kernels} kernels, counted by QEMU; not cycles"
        figures.append(Figure("instructions", float(instructions), Evidence.SIMULATOR, how))
    return tuple(figures)
