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
    result_of(run.report, artefact, job, Evidence.SIMULATOR, f"emulated {board}")
    _require_same_outputs(run, board, tree)
    arena = smallest_arena(linked.elf, board, run)
    reserved = _require_arena(arena, folder, board, tree)
    found = _Found(board, tree.kernels, linked, run, arena)
    return FirmwareCheck(
        f"Firmware on the emulated {board}, {tree.kernels} kernels: all golden vectors passed; "
        "instructions are not cycles.",
        found.figures(),
        {
            "board": board,
            "kernels": tree.kernels,
            "golden_vectors": len(run.report.golden),
            "largest_difference": max(record.largest_difference for record in run.report.golden),
            "arena_used_bytes": run.report.arena_used_bytes,
            "smallest_arena_bytes": arena,
            "arena_size_bytes": reserved,
            "stack_bytes": run.stack_bytes,
            "flash_bytes": linked.flash_bytes,
            "variables_bytes": found.variables_bytes,
            "instructions": found.instructions,
        },
    )


def _require_same_outputs(run: EmulatedRun, board: str, tree: RuntimeTree) -> None:
    if run.report.passed:
        return
    worst = max(record.largest_difference for record in run.report.golden)
    raise ToolFailedError(
        f"The firmware on the emulated {board} computes other outputs than the interpreter on this host.",
        found=f"they differ by up to {worst} codes, with {tree.kernels} kernels",
        remedy="A kernel of this tflite-micro tree is wrong or of another version; try its reference kernels.",
    )


def _require_arena(arena: int, folder: Path, board: str, tree: RuntimeTree) -> int:
    measured, reserved = shipped_arena(folder)
    if arena > reserved:
        raise ToolFailedError(
            f"The arena in the firmware is too small on the emulated {board}.",
            found=f"{reserved} bytes, where {tree.kernels} kernels need {arena}",
            remedy=f"Set hardware.kernel_margin to {arena / (measured or reserved) - 1:.2f} or more in the profile.",
        )
    return reserved


def smallest_arena(elf: Path, board: str, run: EmulatedRun) -> int:
    """The smallest arena, in steps of 16 bytes, in which the golden vectors pass.

    It is more than what the interpreter records, ``run.report.arena_used_bytes``, where planning takes memory that it
    gives back.
    """
    used, size = run.report.arena_used_bytes or 0, run.report.arena_size_bytes or 0
    # Nearly always what is recorded is enough and a step less is not: these two are tried first.
    low, high = used // ALIGNMENT - 2, size // ALIGNMENT
    middle = -(-used // ALIGNMENT)
    # An arena that is too small may also keep a kernel from ending.
    patience_s = 10 + 5 * run.wall_s
    while high - low > 1:
        if _works(elf, board, middle * ALIGNMENT, patience_s):
            high = middle
        else:
            low = middle
        middle = (low + high) // 2
    return high * ALIGNMENT


def _works(elf: Path, board: str, arena_bytes: int, timeout_s: float) -> bool:
    try:
        return emulate(elf, board, arena_bytes=arena_bytes, timeout_s=timeout_s).report.passed is True
    except ToolFailedError:
        return False


@dataclass(frozen=True)
class _Found:
    """What a passing run and its linker say."""

    board: str
    kernels: str
    linked: LinkedFirmware
    run: EmulatedRun
    arena_bytes: int

    @property
    def variables_bytes(self) -> int:
        """Static RAM beside the arena."""
        return self.linked.static_ram_bytes - (self.run.report.arena_size_bytes or 0)

    @property
    def instructions(self) -> int:
        """Of the golden vector that took most; they differ by what one tick of the clock stands for."""
        return max(record.instructions for record in self.run.report.golden)

    def figures(self) -> tuple[Figure, ...]:
        """RAM, flash and instructions."""
        where = f"on the emulated {self.board}, {self.kernels} kernels"
        parts = {
            "smallest arena": self.arena_bytes,
            "variables": self.variables_bytes,
            "stack": max(STACK_KB * KIB, self.run.stack_bytes),
        }
        ram_how = " + ".join(f"{size / KIB:.1f} KB {name}" for name, size in parts.items())
        flash_how = f"linked {where}; the self-test's printf included, its vectors left out"
        return (
            Figure("ram_kb", sum(parts.values()) / KIB, Evidence.SIMULATOR, f"{ram_how} {where}"),
            Figure("flash_kb", self.linked.flash_bytes / KIB, Evidence.SIMULATOR, flash_how),
            Figure("instructions", float(self.instructions), Evidence.SIMULATOR, f"one inference {where}; not cycles"),
        )
