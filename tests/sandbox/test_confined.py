"""A worker is limited, dies alone, and whatever becomes of it is told in a sentence."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from edgedeploy.errors import CrashError, InputError, ToolFailedError, UnsupportedOpError
from edgedeploy.progress import NoProgress
from edgedeploy.sandbox import launch
from edgedeploy.sandbox.confine import Job, confined
from edgedeploy.sandbox.limits import NO_LIMITS, Limits, limits_for

LIMITS = Limits(memory_bytes=4 * 2**30, step_cpu_s=50)


@pytest.fixture(params=["fork", "spawn"])
def start(request, monkeypatch):
    """Both ways of starting a worker."""
    monkeypatch.setattr(launch, "may_fork", lambda: request.param == "fork")
    return request.param


@pytest.fixture
def run(tmp_path):
    """Run one of `sandbox_jobs` in a worker."""

    def run(name, arguments=None, limits=LIMITS, progress=None, events=None, **how):
        scratch = tmp_path / f"scratch-{time.monotonic_ns()}"
        scratch.mkdir()
        job = Job(f"sandbox_jobs:{name}", arguments, scratch, **how)
        return confined(job, limits, progress or NoProgress(), events)

    return run


class Heard:
    """Remembers what it is told."""

    def __init__(self):
        self.notes, self.bars = [], []

    def note(self, text):
        self.notes.append(text)

    def track(self, items, *, what, total=None):
        self.bars.append((what, total))
        yield from items


def test_result_events_and_progress_come_back(start, run):
    heard, events = Heard(), []
    result = run("echo", [1, 2, 3], progress=heard, events=events.append)
    assert result["sum"] == 6
    assert events == [1, 2, 3]
    assert heard.notes == ["begun"]
    assert heard.bars == [("Items", 3)]


def test_the_users_errors_arrive_as_they_were_raised(start, run):
    with pytest.raises(UnsupportedOpError, match="Theirs") as refused:
        run("refuse")
    assert refused.value.ops == (("Relu6", "a/b", "no kernel"),)
    with pytest.raises(InputError) as said:
        run("say_no")
    assert (said.value.what, said.value.found, said.value.remedy) == ("No.", "this", "that")


def test_a_defect_of_ours_arrives_with_its_traceback(start, run):
    with pytest.raises(CrashError) as crash:
        run("defect")
    assert "KeyError" in crash.value.found


@pytest.mark.parametrize(("step", "kind"), [("load", InputError), ("capture", InputError), ("reference", InputError)])
def test_a_step_that_never_ends_is_ended_by_its_cpu_time(run, step, kind):
    with pytest.raises(kind, match="did not survive") as ended:
        run("spin", step, limits=Limits(4 * 2**30, step_cpu_s=1))
    assert "CPU time" in ended.value.found and "--step-seconds" in ended.value.remedy


def test_vendors_tools_get_more_time_and_their_failure_is_theirs(run, monkeypatch):
    monkeypatch.setattr("edgedeploy.sandbox.limits._TOOL_FACTOR", 2)
    with pytest.raises(ToolFailedError, match="exporting") as ended:
        run("spin", "export", limits=Limits(4 * 2**30, step_cpu_s=1))
    assert "more than 2 s" in ended.value.found


def test_a_step_that_waits_for_ever_is_ended(run):
    with pytest.raises(InputError, match="loading the model") as ended:
        run("wait", "load", limits=Limits(4 * 2**30, idle_s=2))
    assert "neither computed nor said anything" in ended.value.found


def test_memory_is_bounded(start, run):
    with pytest.raises(InputError, match="memory") as ended:
        run("hoard", limits=Limits(2 * 2**30))
    assert "2.0 GiB" in ended.value.found


@pytest.mark.parametrize("number", [signal.SIGFPE, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGKILL])
def test_a_crash_in_a_library_is_a_sentence(run, number):
    with pytest.raises(InputError, match="capturing the model") as ended:
        run("signal_itself", int(number))
    assert number.name in ended.value.found


def test_only_its_own_folder_can_be_written(start, run, tmp_path):
    victim, allowed = tmp_path / "victim", tmp_path / "allowed"
    for folder in (victim, allowed):
        folder.mkdir()
        (folder / "old").write_text("kept")
    enforced = run("echo", [])["confinement"]["files"]
    if "Landlock" not in enforced:
        pytest.skip("this kernel has no Landlock: run the tests on Linux 5.13 or later")
    assert run("change", str(victim)) == []
    assert (victim / "old").read_text() == "kept" and [path.name for path in victim.iterdir()] == ["old"]
    limits = Limits(4 * 2**30, writable=(allowed,))
    assert {"write", "overwrite", "truncate", "remove", "mkdir"} <= set(run("change", str(allowed), limits=limits))
    assert run("write", str(tmp_path / "free"), limits=NO_LIMITS) == "written"


def test_there_is_no_network_unless_a_device_needs_it(start, run):
    if "seccomp" not in run("echo", [])["confinement"]["network"]:
        pytest.skip("no seccomp here: run the tests on Linux on x86-64 or ARM64 outside a stricter sandbox")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert run("connect", port) == os.strerror(13)
        assert run("connect", port, limits=Limits(4 * 2**30, network=True)) == "connected"


def test_it_cannot_kill_processes_outside(run):
    bystander = subprocess.Popen(["sleep", "1000"])
    try:
        confinement = run("echo", [])["confinement"]["files"]
        if "Landlock" not in confinement:
            pytest.skip("this kernel has no Landlock: run the tests on Linux 6.12 or later")
        said = run("kill", bystander.pid)
        if said == "killed":
            pytest.skip("this kernel's Landlock does not scope signals: run the tests on Linux 6.12 or later")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_what_libraries_print_does_not_reach_the_terminal(start, run, capfd):
    run("shout")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "text", ['{"event": 1, "step": 2}\n', "not json\n", "[1]\n", '{"unknown": 1}\n', '{"done": 1}\n']
)
def test_a_worker_that_says_something_unknown_is_not_believed(run, text):
    with pytest.raises(ToolFailedError, match="worker"):
        run("babble", text)


def test_an_interrupted_parent_ends_its_worker(tmp_path):
    script = """
        import sys
        from pathlib import Path
        from edgedeploy.progress import NoProgress
        from edgedeploy.sandbox.confine import Job, confined
        from edgedeploy.sandbox.limits import Limits
        confined(Job("sandbox_jobs:pids", sys.argv[1], Path(sys.argv[2])), Limits(4 * 2**30), NoProgress())
    """
    support = Path(__file__).parents[1] / "support"
    for number in (signal.SIGINT, signal.SIGKILL):
        scratch = tmp_path / number.name
        scratch.mkdir()
        told = scratch / "pids"
        parent = subprocess.Popen(
            [sys.executable, "-P", "-c", textwrap.dedent(script), str(told), str(scratch)],
            env={**os.environ, "PYTHONPATH": str(support)},
            stderr=subprocess.DEVNULL,
        )
        while not (told.exists() and told.read_text().count(" ")):
            assert parent.poll() is None
            time.sleep(0.05)
        worker, child = map(int, told.read_text().split())
        parent.send_signal(number)
        parent.wait()
        for pid in (worker, child):
            while _runs(pid):
                time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_limits_grow_with_the_file(tmp_path):
    small, large = tmp_path / "small.pt2", tmp_path / "large.pt2"
    small.write_bytes(b"")
    with large.open("wb") as file:
        file.truncate(10**9)
    assert limits_for(small).step_cpu_s < limits_for(large).step_cpu_s
    assert limits_for(small).memory_bytes <= limits_for(large).memory_bytes <= psutil.virtual_memory().total
    assert limits_for(small, step_cpu_s=7).step_cpu_s == 7
    assert limits_for(tmp_path / "absent").memory_bytes == limits_for(small).memory_bytes
