"""Nothing half-done: whatever interrupts a run, the bundle of before is there whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgedeploy.bundle.folder import WORK_PREFIX, hash_tree, move_into_place, work_folder
from edgedeploy.errors import InputError, ToolFailedError


def bundle(path, text):
    path.mkdir(parents=True)
    (path / "manifest.json").write_text(text)
    return path


def test_moving_into_place_replaces_the_old_one(tmp_path):
    old = bundle(tmp_path / "out" / "phone", "old")
    with work_folder(tmp_path / "out") as work:
        move_into_place(bundle(work / "bundle", "new"), old)
    assert (old / "manifest.json").read_text() == "new"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["phone"]


def test_a_failed_move_puts_the_old_one_back(tmp_path):
    old = bundle(tmp_path / "out" / "phone", "old")
    with work_folder(tmp_path / "out") as work, pytest.raises(FileNotFoundError):
        move_into_place(work / "never-written", old)
    assert (old / "manifest.json").read_text() == "old"


def test_an_error_leaves_nothing_behind(tmp_path):
    with pytest.raises(ZeroDivisionError), work_folder(tmp_path / "out") as work:
        (work / "half").write_text("x")
        _ = 1 / 0
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="is a file"), work_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out").read_text() == "mine"


def test_an_output_that_cannot_be_written():
    with (
        pytest.raises(InputError, match="can't be written"),
        work_folder(Path("/proc/out")),
    ):
        pass


def test_a_full_disk_is_a_sentence(tmp_path):
    with (
        pytest.raises(ToolFailedError, match="disk is full"),
        work_folder(tmp_path / "out"),
        Path("/dev/full").open("w") as full,
    ):
        full.write("x" * 100_000)


def test_what_a_killed_run_left_is_put_right(tmp_path):
    """Kill a run in the instant between the two renames; the next run restores the old bundle."""
    out = tmp_path / "out"
    bundle(out / "phone", "old")
    code = f"""
import pathlib, sys, time
from edgedeploy.bundle import folder
out = pathlib.Path({str(out)!r})
with folder.work_folder(out) as work:
    (work / "phone").mkdir()
    (out / "phone").rename(work / "phone" / "previous-phone")
    print("moved", flush=True)
    time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "moved\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not (out / "phone").exists()
    with work_folder(out):
        assert (out / "phone" / "manifest.json").read_text() == "old"
    assert not list(out.glob(f"{WORK_PREFIX}*"))


def test_a_running_neighbour_is_left_alone(tmp_path):
    neighbour = tmp_path / "out" / f"{WORK_PREFIX}{os.getpid()}-abc"
    neighbour.mkdir(parents=True)
    with work_folder(tmp_path / "out"):
        assert neighbour.exists()


def test_hash_tree_sees_every_byte(tmp_path):
    folder = bundle(tmp_path / "b", "x")
    before = hash_tree(folder)
    (folder / "manifest.json").write_text("y")
    assert hash_tree(folder) != before
    assert hash_tree(folder, exclude=("manifest.json",)) == {}
