"""The firmware of bundles, linked and emulated: what was estimated beside what the linker and QEMU say.

    TFLITE_MICRO_DIR=TREE python benchmarks/tflite_firmware.py BUNDLE [BUNDLE ...]
    python benchmarks/tflite_firmware.py --headers FOLDER [--headers FOLDER ...] BUNDLE [BUNDLE ...]

BUNDLE is what `deploy` left for a microcontroller, made without TFLITE_MICRO_DIR so that it holds the estimates. The
first form prints, for each bundle: do the golden vectors pass on the emulated core; linked flash beside its estimate
and band; the smallest arena there beside the host's; instructions, and how many a multiply-accumulate.

The second form compiles main.cc with the model's resolver for every core, warnings as errors, against headers of a real
tflite-micro where no sources are at hand: the wheel xmos-ai-tools holds some (runtime/include; its namespace is
tflite_micro, which is dealt with), Debian's libgemmlowp-dev the third party's (/usr/include/gemmlowp).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from edgedeploy.exporters.tflite_micro.firmware.build import build_emulated
from edgedeploy.exporters.tflite_micro.firmware.bundle import shipped_arena
from edgedeploy.exporters.tflite_micro.firmware.check import COMPILER, WARNINGS
from edgedeploy.exporters.tflite_micro.firmware.cores import CORES
from edgedeploy.exporters.tflite_micro.firmware.tree import VARIABLE, RuntimeTree, find_tree
from edgedeploy.targets.tflite_micro.emulation import smallest_arena
from edgedeploy.targets.tflite_micro.emulator import emulate


def against_headers(bundle: Path, folders: list[Path]) -> bool:
    """Compile a bundle's main.cc for every core."""
    flags = ["-std=c++17", "-fno-rtti", "-fno-exceptions", *WARNINGS]
    flags += [part for folder in folders for part in ("-isystem", str(folder))]
    interpreter = next(folder for folder in folders if (folder / "tensorflow/lite/micro/micro_interpreter.h").is_file())
    if "namespace tflite_micro" in (interpreter / "tensorflow/lite/micro/micro_interpreter.h").read_text():
        flags.append("-Dtflite=tflite_micro")  # this copy also has no TF_LITE_STATIC_MEMORY
    else:
        flags.append("-DTF_LITE_STATIC_MEMORY")
    good = True
    for cpu, core in CORES.items():
        source = bundle / "artefact/firmware/main.cc"
        command = [COMPILER, *core, *flags, "-c", str(source), "-o", "/dev/null"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        first = next((line for line in done.stderr.splitlines() if "error" in line), "")
        print(f"{bundle.name:24} {cpu:14} {'compiles' if done.returncode == 0 else first}")
        good &= done.returncode == 0
    return good


def linked(bundle: Path, tree: RuntimeTree) -> bool:
    """Link and emulate a bundle's firmware; print a row."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    run = json.loads((bundle / "measurements.json").read_text())["runs"][0]
    flash = next(figure for figure in run["figures"] if figure["name"] == "flash_kb")
    board = manifest["profile"]["hardware"]["emulated_board"]
    folder = bundle / "artefact/firmware"
    with tempfile.TemporaryDirectory(prefix="edgedeploy-firmware-") as scratch:
        made = build_emulated(folder, tree, Path(scratch))
        first = emulate(made.elf, board)
        arena = smallest_arena(made.elf, board, first)
    report, macs = first.report, manifest["model"]["macs"]
    instructions = max(record.instructions for record in report.golden)
    estimate = f"{flash['value']:.0f} ({flash['low']:.0f}-{flash['high']:.0f})" if flash["low"] else flash["evidence"]
    arenas = f"{arena:9} {report.arena_used_bytes:9} {shipped_arena(folder)[0]:9}"
    flashes = f"{made.flash_bytes / 1024:8.1f} {estimate:>16}"
    verdict = "PASS" if report.passed else "FAIL"
    print(f"{bundle.name:24} {board:11} {verdict:5} {flashes} {arenas} {instructions:12} {instructions / macs:8.2f}")
    return bool(report.passed)


def main() -> int:
    """Run the form that was asked for; returns how many bundles failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--headers", action="append", type=Path, metavar="FOLDER", help="a folder to include from")
    asked = parser.parse_args()
    if asked.headers:
        return sum(not against_headers(bundle, asked.headers) for bundle in asked.bundles)
    tree = find_tree()
    if tree is None:
        print(f"skipped: {VARIABLE} names no tflite-micro tree, and no --headers were given")
        return 0
    print(f"kernels: {tree.kernels}, {tree.root}")
    print(
        f"{'bundle':24} {'board':11} {'':5} {'flash KB':>8} {'estimated':>16} {'arena':>9} {'used':>9} {'host':>9}"
        f" {'instructions':>12} {'per MAC':>8}"
    )
    return sum(not linked(bundle, tree) for bundle in asked.bundles)


if __name__ == "__main__":
    sys.exit(main())
