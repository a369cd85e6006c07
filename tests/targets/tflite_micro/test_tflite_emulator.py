"""Firmware linked with a stand-in for tflite-micro and run in QEMU: what it proves, and every way it can go wrong.

The stand-in (tests/support/tflm_stand_in) is not tflite-micro: its arena, code size and instruction count say nothing
of the real runtime. Start-up code, linker script, semihosting, golden test, arena search and counting are real.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from tflite_firmware import STAND_IN, artefact_for, copy_of_stand_in, job_for, needs_emulator, set_fault

from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.errors import InputError, MissingToolError, ToolFailedError
from edgedeploy.evidence import Evidence
from edgedeploy.exporters.tflite_micro.exporter import TfliteMicroExporter
from edgedeploy.exporters.tflite_micro.firmware.build import build_emulated
from edgedeploy.exporters.tflite_micro.firmware.tree import VARIABLE, RuntimeTree
from edgedeploy.targets.tflite_micro import emulator
from edgedeploy.targets.tflite_micro.emulation import check_firmware
from edgedeploy.targets.tflite_micro.emulator import emulate
from edgedeploy.targets.tflite_micro.runner import TfliteMicroRunner


@pytest.fixture(autouse=True)
def no_tree(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture(scope="module")
def completed(tmp_path_factory):
    """An artefact by profile, its golden vectors in place."""
    made = {}

    def get(profile):
        if profile not in made:
            folder = tmp_path_factory.mktemp(profile)
            artefact = artefact_for(folder / "artefact", profile)
            job = job_for(folder / "run", profile)
            TfliteMicroExporter().finish(artefact, job.profile, job.samples, TfliteMicroRunner().run(artefact, job))
            made[profile] = artefact
        return made[profile]

    return get


@needs_emulator
def test_the_runner_links_and_emulates_where_a_tree_is_given_stand_in(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(STAND_IN))
    artefact = artefact_for(tmp_path / "artefact", "stm32l4r5")
    result = TfliteMicroRunner().run(artefact, job_for(tmp_path / "run", "stm32l4r5"))
    found = result.details["firmware_emulated"]
    assert (found["board"], found["kernels"], found["golden_vectors"]) == ("mps2-an386", "reference", 3)
    assert found["largest_difference"] <= 1
    # 64 × 32 + 32 × 10 products, one to a few dozen instructions each.
    assert 2368 < found["instructions"] < 100_000
    # The stand-in gives 256 bytes back after planning, which only the search finds.
    assert found["smallest_arena_bytes"] == found["arena_used_bytes"] + 256
    assert 256 < found["stack_bytes"] < 4096
    figures = {figure.name: figure for figure in result.figures}
    assert figures["ram_kb"].evidence is figures["instructions"].evidence is Evidence.SIMULATOR
    assert 0 < found["variables_bytes"] < 2048
    assert figures["ram_kb"].value == (found["smallest_arena_bytes"] + found["variables_bytes"]) / 1024 + 4
    # The linked file is for the emulated board, and is not what ships.
    assert figures["flash_kb"].evidence is Evidence.SIMULATOR
    assert artefact.path.stat().st_size < found["flash_bytes"] < artefact.path.stat().st_size + 32 * 1024
    assert figures["flash_kb"].value == found["flash_bytes"] / 1024
    assert any("instructions are not cycles" in note for note in result.notes)


@needs_emulator
@pytest.mark.parametrize("profile", ["stm32f746", "stm32u575", "cortex-m55", "rp2040"])
def test_every_emulated_board_runs_the_firmware_stand_in(completed, tmp_path, profile):
    artefact = completed(profile)
    board = load_profile(profile).hardware.emulated_board
    linked = build_emulated(artefact.folder / "firmware", RuntimeTree.at(STAND_IN), tmp_path / "build")
    first, second = emulate(linked.elf, board), emulate(linked.elf, board)
    assert first == second
    assert first.report.passed
    assert first.report.arena_used_bytes < first.report.arena_size_bytes
    assert all(record.instructions > 2368 for record in first.report.golden)
    small = emulate(linked.elf, board, arena_bytes=first.report.arena_used_bytes - 16)
    assert "too small" in small.report.error


@needs_emulator
def test_a_clones_cmsis_nn_takes_the_reference_kernels_place_stand_in(completed, tmp_path):
    artefact = completed("stm32l4r5")
    # Blanks in paths are no trouble either.
    tree = RuntimeTree.at(copy_of_stand_in(tmp_path / "a tree", clone=True, cmsis_nn=True))
    folder = shutil.copytree(artefact.folder / "firmware", tmp_path / "a firmware")
    found = check_firmware(folder, artefact, job_for(tmp_path / "a run", "stm32l4r5"), tree)
    assert found.details["kernels"] == "CMSIS-NN"
    assert any("CMSIS-NN" in figure.how for figure in found.figures)
    symbols = (tmp_path / "a run/firmware-build").glob("*_golden")
    assert b"arm_stand_in_dot4" in next(symbols).read_bytes()


@needs_emulator
def test_cmake_fetches_a_tree_and_its_third_party_code_where_none_is_given_stand_in(completed, tmp_path):
    upstream = copy_of_stand_in(tmp_path / "upstream")
    makefile = upstream / "tensorflow/lite/micro/tools/make/Makefile"
    makefile.parent.mkdir(parents=True)
    downloads = makefile.parent / "downloads"
    shutil.rmtree(upstream / "third_party")
    place = downloads.relative_to(upstream)
    recipe = (f"mkdir -p {place}/flatbuffers/include", f"echo $(OPTIMIZED_KERNEL_DIR) > {place}/kernels")
    makefile.write_text("third_party_downloads:\n" + "".join(f"\t{line}\n" for line in recipe))
    git = ["git", "-C", str(upstream), "-c", "user.name=t", "-c", "user.email=t@t"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "stand-in"]):
        subprocess.run([*git, *arguments], check=True)
    folder = completed("stm32l4r5").folder / "firmware"
    configure = ["cmake", "-S", str(folder), "-B", str(tmp_path / "build"), "-DEDGEDEPLOY_EMULATED=ON"]
    configure += [f"-DTFLITE_MICRO_REPOSITORY={upstream}", f"-DCMAKE_TOOLCHAIN_FILE={folder / 'toolchain.cmake'}"]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(tmp_path / "build")], check=True, capture_output=True)
    assert emulate(tmp_path / "build/model_golden", "mps2-an386").report.passed
    fetched = tmp_path / "build/_deps/tflite_micro_tree-src" / place / "kernels"
    assert fetched.read_text().strip() == "cmsis_nn"
    # The library that this made, given as one that somebody built: nothing of the runtime is compiled again.
    library = (tmp_path / "build/libtflite_micro.a").rename(tmp_path / "libtensorflow-microlite.a")
    configure[4] = str(tmp_path / "linked")
    given = [f"-DTFLITE_MICRO_LIBRARY={library}", f"-DTFLITE_MICRO_DIR={STAND_IN}"]
    subprocess.run([*configure, *given], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(tmp_path / "linked")], check=True, capture_output=True)
    assert not list((tmp_path / "linked").rglob("micro_interpreter*"))
    assert emulate(tmp_path / "linked/model_golden", "mps2-an386").report.passed


@needs_emulator
def test_whatever_breaks_is_said_stand_in(completed, tmp_path, monkeypatch):
    """One build folder: each fault recompiles one source."""
    artefact = completed("stm32l4r5")
    folder, job = artefact.folder / "firmware", job_for(tmp_path / "run", "stm32l4r5")
    copy = copy_of_stand_in(tmp_path / "tree")
    tree = RuntimeTree.at(copy)

    def said(fault):
        set_fault(copy, fault)
        with pytest.raises(ToolFailedError) as raised:
            check_firmware(folder, artefact, job, tree)
        return str(raised.value)

    text = said("bad access")
    assert "hard fault at 0" in text and "The firmware on emulated mps2-an386 failed" in text
    assert "could not be computed" in said("error")
    text = said("wrong outputs")
    assert "other outputs than the interpreter" in text and re.search(r"by up to \d+ codes", text)
    assert "the stack of 64 KB overflowed" in said("deep stack")
    monkeypatch.setattr(emulator, "TIMEOUT_S", 1.5)
    assert "did not end on the emulated mps2-an386 in 1.5 s" in said("endless")


@needs_emulator
def test_an_arena_that_the_cores_kernels_find_too_small_is_said_with_what_they_need_stand_in(completed, tmp_path):
    artefact, job = completed("stm32l4r5"), job_for(tmp_path / "run", "stm32l4r5")
    folder = shutil.copytree(artefact.folder / "firmware", tmp_path / "firmware")
    header = folder / "model_arena.h"

    def said(size):
        text = re.sub(r"ARENA_MEASURED \d+", f"ARENA_MEASURED {size}", header.read_text())
        header.write_text(re.sub(r"ARENA_SIZE \d+", f"ARENA_SIZE {size}", text))
        with pytest.raises(ToolFailedError) as raised:
            check_firmware(folder, artefact, job, RuntimeTree.at(STAND_IN))
        return str(raised.value)

    assert "320 bytes, where reference kernels need 400" in said(320)
    assert "kernel_margin to 0.25 or more" in said(320)
    assert "the arena of 128 bytes is too small" in said(64)


@needs_emulator
@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("tensorflow/lite/micro/system_setup.cc", "int broken(\n", r"system_setup\.cc:\d.*error"),
        ("tensorflow/lite/micro/system_setup.cc", "\n", "undefined reference to `tflite::InitializeTarget"),
    ],
    ids=["compiler", "linker"],
)
def test_the_first_line_of_a_broken_build_is_quoted_stand_in(completed, tmp_path, file, text, words):
    tree = copy_of_stand_in(tmp_path / "tree")
    (tree / file).write_text(text)
    with pytest.raises(ToolFailedError, match="does not build") as raised:
        build_emulated(completed("stm32l4r5").folder / "firmware", RuntimeTree.at(tree), tmp_path / "build")
    assert re.search(words, raised.value.found)
    assert "TFLITE_MICRO_DIR" in raised.value.remedy


@needs_emulator
@pytest.mark.parametrize("missing", ["arm-none-eabi-g++", "cmake", "make", "qemu-system-arm"])
def test_a_missing_tool_leaves_the_figures_unmeasured_and_says_so(completed, tmp_path, monkeypatch, missing):
    only_others = tmp_path / "bin"
    only_others.mkdir()
    for folder in map(Path, os.environ["PATH"].split(os.pathsep)):
        for program in folder.iterdir() if folder.is_dir() else ():
            if program.name != missing and not (only_others / program.name).is_symlink():
                (only_others / program.name).symlink_to(program)
    monkeypatch.setenv("PATH", str(only_others))
    if missing == "qemu-system-arm":
        monkeypatch.setattr("edgedeploy.targets.tflite_micro.emulation.build_emulated", lambda *_: pytest.fail("built"))
    artefact = completed("stm32l4r5")
    found = check_firmware(
        artefact.folder / "firmware", artefact, job_for(tmp_path / "run", "stm32l4r5"), RuntimeTree.at(STAND_IN)
    )
    assert found.figures == ()
    assert found.note.startswith("Linked firmware: not measured:")
    assert f"{missing} is needed" in found.note and "apt-get install" in found.note


def test_without_a_tree_or_a_board_the_report_says_what_is_not_measured(tmp_path):
    for profile, words in (
        ("stm32l4r5", "no tflite-micro sources. Set TFLITE_MICRO_DIR"),
        ("esp32s3", "QEMU has no board for esp32s3"),
        ("cortex-m55-ethos-u55-128", "QEMU has no board"),
    ):
        artefact = artefact_for(tmp_path / profile, profile)
        result = TfliteMicroRunner().run(artefact, job_for(tmp_path / f"{profile}-run", profile))
        assert any(words in note and "not measured" in note for note in result.notes)
        assert words in result.details["firmware_emulated"]
        assert not (artefact.folder / "firmware/emulated").exists() or profile == "stm32l4r5"


@pytest.mark.parametrize("complete", [True, False])
def test_a_replay_neither_builds_nor_completes_the_firmware(tmp_path, monkeypatch, complete):
    """A bundle is anybody's: its build files are not run, even where a tree is at hand and its headers ask for it."""
    monkeypatch.setenv(VARIABLE, str(STAND_IN))
    artefact, job = artefact_for(tmp_path / "artefact", "stm32l4r5"), job_for(tmp_path / "run", "stm32l4r5")
    job = replace(job, may_build=False)
    if complete:
        result = TfliteMicroRunner().run(artefact, job)
        TfliteMicroExporter().finish(artefact, job.profile, job.samples, result)
    build = artefact.folder / "firmware/CMakeLists.txt"
    build.write_text(f'file(WRITE "{tmp_path / "CANARY"}" "x")\n' + build.read_text())
    before = {path: path.read_bytes() for path in artefact.folder.rglob("*") if path.is_file()}
    result = TfliteMicroRunner().run(artefact, replace(job, work_dir=tmp_path / "again"))
    assert "firmware_emulated" not in result.details and "firmware_compiled" not in result.details
    assert {path: path.read_bytes() for path in artefact.folder.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "CANARY").exists()


def test_a_folder_that_is_no_complete_tree_is_refused(tmp_path):
    with pytest.raises(InputError, match="no tflite-micro source tree") as raised:
        RuntimeTree.at(tmp_path / "nowhere")
    assert "there is no folder" in raised.value.found
    with pytest.raises(InputError, match="no tflite-micro source tree") as raised:
        RuntimeTree.at(tmp_path)
    assert "micro_interpreter.h" in raised.value.found
    tree = copy_of_stand_in(tmp_path / "tree")
    shutil.rmtree(tree / "third_party")
    with pytest.raises(InputError, match="lacks its third-party code") as raised:
        RuntimeTree.at(tree)
    assert "third_party_downloads" in raised.value.remedy


def test_a_wrong_tree_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    nothing_to_work_on = None
    with pytest.raises(InputError, match="no tflite-micro source tree"):
        next(TfliteMicroExporter().candidates(nothing_to_work_on))


@needs_emulator
def test_what_is_no_firmware_ends_before_its_report(tmp_path):
    nothing = tmp_path / "fw.elf"
    nothing.write_bytes(bytes(64))
    with pytest.raises(ToolFailedError, match="before its report was complete") as raised:
        emulate(nothing, "mps2-an386")
    assert "SIGABRT" in raised.value.found or "exit status" in raised.value.found


def test_qemu_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="qemu-system-arm"):
        emulate(tmp_path / "fw.elf", "mps2-an386")
