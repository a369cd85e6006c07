"""How a command ends: its exit code says what was found, whatever becomes of its output or of one target."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from processes import halting

from edgedeploy import backends as table
from edgedeploy.backends import Backend
from edgedeploy.interfaces import Selection

THEIRS = Backend("theirs", f"{__name__}:CrashingExporter", f"{__name__}:NoRunner")

PROFILE = '[device]\nname = "{name}"\nclass = "edge"\nbackend = "theirs"\n[budget]\nsize_mb = {{ max = 1 }}\n'


class CrashingExporter:
    """Fails as a backend with a defect does, in the way that its profile is called."""

    selection = Selection.FIRST_PASSING

    def candidates(self, context):
        if context.profile.name == "eof":
            raise EOFError("no data left")
        if context.profile.name == "memory":
            raise MemoryError
        raise IndexError(3)
        yield


class NoRunner:
    pass


@pytest.fixture
def crashing(monkeypatch, tmp_path):
    """A file of a profile whose backend has a defect."""
    sys.modules.setdefault(__name__, sys.modules[CrashingExporter.__module__])
    monkeypatch.setattr(EntryPoint, "load", lambda self: THEIRS)
    point = EntryPoint("theirs", f"{__name__}:THEIRS", "edgedeploy.backends")
    monkeypatch.setattr(table, "entry_points", lambda group: [point])

    def write(name):
        (tmp_path / f"{name}.toml").write_text(PROFILE.format(name=name))
        return str(tmp_path / f"{name}.toml")

    return write


@pytest.mark.parametrize(("name", "word"), [("index", "IndexError"), ("eof", "EOFError")])
def test_a_crash_costs_only_its_own_target(crashing, deploy, model, tmp_path, name, word):
    targets = f"{crashing(name)},host,x86-avx2"
    code, out, error = deploy("-t", targets, "--candidate", "float32", "--json", "-o", tmp_path / "out", model)
    assert code == 70
    assert error.count("Traceback") == 1 and word in error and "interrupted" not in error
    found = json.loads(out)
    assert found["exit_code"] == 70
    codes = {target: entry["exit_code"] for target, entry in found["targets"].items()}
    assert codes[name] == 70 and codes["host"] == 0 and codes["x86-avx2"] != 70
    assert (tmp_path / "out/host/manifest.json").is_file()


def test_memory_that_runs_out_is_no_defect(crashing, deploy, model, tmp_path):
    code, _, error = deploy("-t", crashing("memory"), "--candidate", "float32", "-o", tmp_path / "out", model)
    assert code == 5 and "Memory ran out" in error and "Traceback" not in error


@pytest.mark.parametrize("limit", ["ulimit -n 6", "ulimit -f 0", "ulimit -v 400000"])
def test_limits_of_the_users_own_are_no_defect(model, tmp_path, limit):
    line = f'{limit}; exec "$@"'
    argv = ["bash", "-c", line, "bash", *command(*QUICK, "-o", tmp_path / "out", model)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode in (0, 2, 5), done.stdout  # a generous machine needs less than the limit
    assert "report it with the lines above" not in done.stdout


def test_a_folder_that_the_locale_has_no_letters_for(model, tmp_path):
    place = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code, _, error = run(*QUICK, "-o", tmp_path / "ö-🙂", model, env=place)
    assert code == 0, error


def command(*arguments) -> list[str]:
    return [sys.executable, "-P", "-m", "edgedeploy", *map(str, arguments)]


def run(*arguments, shell="", env=None):
    line = f'exec "$@" {shell}'
    done = subprocess.run(
        ["bash", "-c", line, "bash", *command(*arguments)],
        capture_output=True, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})},
    )  # fmt: skip
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


QUICK = ("-t", "host", "--candidate", "float32")
BROKEN = [
    ">&-",
    "2>&-",
    ">&- 2>&-",
    "> /dev/full",
    "2> /dev/full",
    "> >(true)",
    "> >(head -c1 >/dev/null)",
    "2> >(true)",
]


@pytest.mark.parametrize("shell", BROKEN)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_broken_output_never_changes_the_exit_code(model, tmp_path, shell, form):
    code, _, error = run(*QUICK, *form, "-o", tmp_path / "out", model, shell=shell)
    assert code == 0, error
    assert (tmp_path / "out/host/manifest.json").is_file()
    failing = ("--budget", "size_mb=0.000001")
    assert run(*QUICK, *failing, *form, "-o", tmp_path / "out", model, shell=shell)[0] == 1


@pytest.mark.parametrize("shell", [">&-", "> /dev/full", "> >(true)"])
@pytest.mark.parametrize(
    ("arguments", "expected"), [(["targets"], 0), (["--help"], 0), (["--version"], 0), (["targets", "nope"], 2)]
)
def test_every_command_outlives_its_reader(arguments, expected, shell):
    assert run(*arguments, shell=shell)[0] == expected


def test_a_full_disk_behind_stdout_is_told():
    code, _, error = run("targets", shell="> /dev/full")
    assert code == 0
    assert "standard output" in error and "space" in error


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-16"])
def test_any_encoding_will_do(model, tmp_path, encoding):
    out = tmp_path / "ausgabe-ö-🙂"
    code, shown, error = run(*QUICK, "-o", out, model, env={"PYTHONIOENCODING": encoding})
    assert code == 0, error
    if encoding == "ascii":
        assert "<=" in shown and "\\xf6" in shown
    assert (out / "host/manifest.json").is_file()
    assert run("targets", "snapdragon888", env={"PYTHONIOENCODING": encoding})[0] == 0
    assert run("targets", "ö-🙂", env={"PYTHONIOENCODING": encoding})[0] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_says_what_it_had_written(model, tmp_path, number):
    """The first target's bundle stands; the second is interrupted."""
    out = tmp_path / "out"
    arguments = ("-t", "host,x86-avx2", "--candidate", "static-qdq", "--json", "-o", out, model)
    child = halting("x86-avx2: trying", *arguments, stdout=subprocess.PIPE)
    child.send_signal(number)
    shown, error = child.communicate()
    assert child.returncode == 130
    written = [path.name for path in out.iterdir() if path.name.startswith("host")]
    assert len(written) == 1 and str(out / written[0]) in error and "nothing was changed" not in error
    found = json.loads(shown)
    assert found["exit_code"] == 130 and list(found["targets"]) == ["host"]


def test_an_interrupted_run_that_wrote_nothing_says_so(model, tmp_path):
    child = halting("Capturing", *QUICK, "-o", tmp_path / "out", model)
    child.send_signal(signal.SIGINT)
    _, error = child.communicate()
    assert child.returncode == 130 and "nothing was changed" in error
    assert not (tmp_path / "out").exists()


def test_a_terminal_that_went_away_under_nohup_is_no_interruption(model, tmp_path):
    child = subprocess.Popen(
        ["bash", "-c", "trap '' HUP; exec \"$@\"", "bash", *command(*QUICK, "-o", tmp_path / "out", model)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in child.stderr:
        if line.startswith("Capturing"):
            child.send_signal(signal.SIGHUP)
            break
    child.communicate()
    assert child.returncode == 0
