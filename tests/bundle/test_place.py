"""A bundle takes its place in one step, and takes it only from a bundle."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from bundles import bundle_text, write_bundle

from edgedeploy.bundle import place
from edgedeploy.bundle.folder import work_folder
from edgedeploy.bundle.place import check_replaceable, move_into_place, remove_outdated
from edgedeploy.errors import InputError, ToolFailedError


@pytest.fixture(params=["exchange", "two renames"])
def way(request, monkeypatch):
    """With the system call that lets two folders change names, and without it, as elsewhere."""
    if request.param == "two renames":
        monkeypatch.setattr(place, "_renameat2", lambda: None)


@pytest.mark.usefixtures("way")
def test_moving_into_place_replaces_the_old_one(tmp_path):
    old = write_bundle(tmp_path / "out" / "phone", "old")
    with work_folder(tmp_path / "out") as work:
        move_into_place(write_bundle(work / "bundle", "new"), old)
    assert bundle_text(old) == "new"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["phone"]


@pytest.mark.usefixtures("way")
def test_a_failed_move_leaves_the_old_one(tmp_path):
    old = write_bundle(tmp_path / "out" / "phone", "old")
    with work_folder(tmp_path / "out") as work, pytest.raises(ToolFailedError, match="is as it was"):
        move_into_place(work / "never-written", old)
    assert bundle_text(old) == "old"


@pytest.mark.parametrize("there", ["folder", "file", "link", "another manifest"])
def test_what_is_no_bundle_is_not_replaced(tmp_path, there):
    out = tmp_path / "out"
    mine = out / "phone"
    if there == "file":
        out.mkdir()
        mine.write_text("three years of work")
    elif there == "link":
        write_bundle(tmp_path / "elsewhere", "old")
        out.mkdir()
        mine.symlink_to(tmp_path / "elsewhere")
    else:
        mine.mkdir(parents=True)
        (mine / "thesis.txt").write_text("three years of work")
        if there == "another manifest":
            (mine / "manifest.json").write_text('{"name": "my web app"}')
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(InputError, match="would be replaced"), work_folder(out) as work:
        move_into_place(write_bundle(work / "bundle", "new"), mine)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("made", ["link", "fifo", "linked folder"])
def test_a_bundle_that_is_not_all_files_is_not_placed(tmp_path, made):
    """A model that takes over the process that runs it must not get a link out of the bundle placed."""
    old = write_bundle(tmp_path / "out" / "phone", "old")
    with work_folder(tmp_path / "out") as work, pytest.raises(ToolFailedError):
        new = write_bundle(work / "bundle", "new")
        if made == "linked folder":
            new = work / "link"
            new.symlink_to(work / "bundle")
        elif made == "link":
            (new / "artefact" / "evil").symlink_to("/etc/passwd")
        else:
            os.mkfifo(new / "artefact" / "evil")
        move_into_place(new, old)
    assert bundle_text(old) == "old"


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "phone").mkdir()
    with work_folder(tmp_path) as work:
        move_into_place(write_bundle(work / "bundle", "new"), tmp_path / "phone")
    assert bundle_text(tmp_path / "phone") == "new"


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_a_place_that_is_no_path(tmp_path, name):
    with pytest.raises(InputError, match="can't be written"):
        check_replaceable(tmp_path / name)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting takes root")
def test_a_mount_point_is_refused_and_keeps_its_bundle(tmp_path):
    target = tmp_path / "phone"
    target.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", target], capture_output=True).returncode:
        pytest.skip("this container may not mount")
    try:
        write_bundle(target / "inner", "old")
        for path in (target / "inner").iterdir():
            path.rename(target / path.name)
        (target / "inner").rmdir()
        with work_folder(tmp_path) as work, pytest.raises(InputError, match="mount point"):
            move_into_place(write_bundle(work / "bundle", "new"), target)
        assert bundle_text(target) == "old"
    finally:
        subprocess.run(["umount", target], check=True)


def test_outdated_bundles_go_and_folders_of_the_user_stay(tmp_path):
    write_bundle(tmp_path / "phone.failed", "old")
    mine = tmp_path / "phone.unverified"
    mine.mkdir()
    (mine / "thesis.txt").write_text("three years of work")
    with work_folder(tmp_path) as work:
        remove_outdated([tmp_path / "phone.failed", mine], work)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["phone.unverified"]
    assert (mine / "thesis.txt").exists()


KILL_POINTS = """
import os, pathlib, shutil, signal, sys
sys.path[:0] = [sys.argv[2]]
from bundles import bundle_text, write_bundle
from edgedeploy.bundle import place
from edgedeploy.bundle.folder import work_folder

out = pathlib.Path(sys.argv[1])
if sys.argv[3] == "two renames":
    place._renameat2 = lambda: None
CHANGES = {"open", "os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.chmod", "os.truncate", "os.link", "os.symlink"}
count, last = 0, -1


def hook(event, arguments):
    global count
    if event in CHANGES and (event != "open" or (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(hook)


def deploy():
    with work_folder(out) as work:
        (work / "phone").mkdir()
        built = write_bundle(work / "phone" / "bundle", "new", files=20)
        place.move_into_place(built, out / "phone")
        place.remove_outdated([out / "phone.failed"], work)


seen, points, point = set(), 0, 0
while True:
    point += 1
    shutil.rmtree(out, ignore_errors=True)
    write_bundle(out / "phone", "old", files=20)
    write_bundle(out / "phone.failed", "old")
    child = os.fork()
    if child == 0:
        count, last = 0, point
        deploy()
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
    points += 1
    found = "missing"
    if sys.argv[3] == "two renames" and not (out / "phone").exists():
        with work_folder(out):  # what the next run does first
            pass
    if (out / "phone").exists():
        found = bundle_text(out / "phone")
    if found not in ("old", "new"):
        print(point, found)
    seen.add(found)
    last, count = -1, 0
    deploy()  # the next run clears up and works
    left = sorted(path.name for path in out.iterdir())
    if left != ["phone"] or bundle_text(out / "phone") != "new":
        print(point, left)
print(points, *sorted(seen))
"""


@pytest.mark.parametrize("how", ["exchange", "two renames"])
def test_a_complete_bundle_whenever_the_run_is_killed(tmp_path, repository, how):
    """SIGKILL before each change of the file system; where swapping takes two renames, the next run mends the gap."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", KILL_POINTS, str(tmp_path / "out"), str(repository / "tests/support"), how],
        capture_output=True,
        text=True,
    )
    points, *seen = done.stdout.split()
    assert seen == ["new", "old"], done.stdout + done.stderr
    assert int(points) >= 60


def test_without_the_next_run_the_exchange_has_no_gap(tmp_path):
    """Another process that looks all the time always finds a bundle."""
    out = tmp_path / "out"
    write_bundle(out / "phone", "0")
    code = "import os, sys\nwhile os.path.exists(sys.argv[1]):\n    pass\nprint('gap')"
    watcher = subprocess.Popen(
        [sys.executable, "-P", "-c", code, str(out / "phone" / "manifest.json")], stdout=subprocess.PIPE, text=True
    )
    with work_folder(out) as work:
        for index in range(200):
            move_into_place(write_bundle(work / f"bundle{index}", str(index)), out / "phone")
    assert watcher.poll() is None, "there was an instant without a bundle"
    watcher.kill()
    watcher.communicate()
    assert bundle_text(out / "phone") == "199"
