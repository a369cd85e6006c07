"""Nothing half-done: whatever interrupts a run, the bundle of before is there whole."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bundles import bundle_text, write_bundle

from edgedeploy.bundle.folder import work_folder
from edgedeploy.bundle.owner import PREFIX
from edgedeploy.bundle.tree import hash_tree
from edgedeploy.errors import EdgeDeployError, InputError, ToolFailedError


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


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "x" * 5000])
def test_an_output_that_is_no_path(tmp_path, name):
    with pytest.raises(InputError, match="can't be written"), work_folder(tmp_path / name):
        pass


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (errno.ENOSPC, 5, "disk is full"),
        (errno.EDQUOT, 5, "quota"),
        (errno.EFBIG, 5, "larger than allowed"),
        (errno.EMFILE, 5, "may not open more files"),
        (errno.EIO, 5, "can't be read or written"),
        (errno.EROFS, 2, "read-only"),
        (errno.EBUSY, 2, "mount point"),
        (errno.ENAMETOOLONG, 2, "too long"),
    ],
)
def test_what_the_file_system_answers_is_a_sentence(tmp_path, number, code, words):
    with pytest.raises(EdgeDeployError, match=words) as raised, work_folder(tmp_path / "out"):
        raise OSError(number, os.strerror(number), "somewhere")
    assert raised.value.exit_code == code
    assert "somewhere" in raised.value.found


def test_a_full_disk_is_a_sentence(tmp_path):
    with (
        pytest.raises(ToolFailedError, match="disk is full"),
        work_folder(tmp_path / "out"),
        Path("/dev/full").open("w") as full,
    ):
        full.write("x" * 100_000)


def test_a_file_size_limit_is_a_sentence(tmp_path):
    """EFBIG as the kernel gives it, in a process of its own."""
    code = f"""
import pathlib, resource
from edgedeploy.bundle.folder import work_folder
from edgedeploy.errors import ToolFailedError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with work_folder(pathlib.Path({str(tmp_path / "out")!r})) as work:
        (work / "large").write_bytes(bytes(5000))
except ToolFailedError as error:
    print(error.what)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stdout == "A file would be larger than allowed here.\n", done.stderr


def test_a_work_folder_deleted_meanwhile_is_a_sentence(tmp_path):
    with pytest.raises(ToolFailedError, match="was deleted while"), work_folder(tmp_path / "out") as work:
        shutil.rmtree(work)
        (work / "more").write_text("x")


def test_an_error_that_is_no_fault_of_the_disk_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), work_folder(tmp_path / "out"):
        Path(tmp_path / "nothing here").read_text()


RUN = """
import pathlib, sys, time
from edgedeploy.bundle import folder
out = pathlib.Path(sys.argv[1])
with folder.work_folder(out) as work:
    (work / "phone").mkdir()
    if len(sys.argv) > 2:
        (out / "phone").rename(work / "phone" / "previous-phone")
    print(work.name, flush=True)
    time.sleep(100000)
"""


def killed(out, *arguments):
    """A run that is killed at work; returns the name of the folder that it leaves."""
    child = subprocess.Popen([sys.executable, "-P", "-c", RUN, str(out), *arguments], stdout=subprocess.PIPE, text=True)
    name = child.stdout.readline().strip()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert (out / name).is_dir()
    return name


def test_what_a_killed_run_left_is_put_right(tmp_path):
    """Kill a run in the instant between the two renames that a system without an exchange needs."""
    out = tmp_path / "out"
    write_bundle(out / "phone", "old")
    killed(out, "between")
    assert not (out / "phone").exists()
    with work_folder(out):
        assert bundle_text(out / "phone") == "old"
    assert [path.name for path in out.iterdir()] == ["phone"]


def test_a_running_neighbour_is_left_alone(tmp_path):
    child = subprocess.Popen([sys.executable, "-P", "-c", RUN, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    neighbour = tmp_path / child.stdout.readline().strip()
    with work_folder(tmp_path):
        assert neighbour.is_dir()
    child.kill()
    child.communicate()


@pytest.mark.parametrize("stranger", ["machine", "process"])
def test_the_folder_of_another_machine_or_container_is_left_alone(tmp_path, stranger):
    """Its process can't be seen from here, so nobody here can say that it has ended."""
    name = killed(tmp_path)
    parts = name.removeprefix(PREFIX).split("-")
    parts[0 if stranger == "machine" else 1] = "0123456789ab" if stranger == "machine" else "other"
    other = tmp_path / (PREFIX + "-".join(parts))
    (tmp_path / name).rename(other)
    (other / "busy").write_text("a run in another container")
    with work_folder(tmp_path):
        assert (other / "busy").exists()


def test_a_process_number_that_was_used_again_is_no_owner(tmp_path):
    name = killed(tmp_path)
    parts = name.removeprefix(PREFIX).split("-")
    parts[1] = str(os.getpid())  # this process lives, and started at another time
    (tmp_path / name).rename(tmp_path / (PREFIX + "-".join(parts)))
    with work_folder(tmp_path) as work:
        assert [path for path in tmp_path.iterdir() if path.is_dir()] == [work]


def test_a_planted_link_is_not_followed(tmp_path):
    mine = tmp_path / "mine"
    write_bundle(mine / "previous-phone", "mine")
    out = tmp_path / "out"
    out.mkdir()
    name = killed(out)
    shutil.rmtree(out / name)
    (out / name).symlink_to(mine)
    with work_folder(out):
        pass
    assert (mine / "previous-phone" / "manifest.json").exists()
    assert not (out / "phone").exists()


def test_hash_tree_sees_every_byte(tmp_path):
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "manifest.json").write_text("x")
    before = hash_tree(folder)
    (folder / "manifest.json").write_text("y")
    assert hash_tree(folder) != before
    assert hash_tree(folder, exclude=("manifest.json",)) == {}
