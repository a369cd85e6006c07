"""The adb transport against a stand-in `adb` that behaves as the documented one does, failures included."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgedeploy.errors import InputError, MissingToolError, ToolFailedError
from edgedeploy.targets.transports import open_transport

# What adb 34 prints and returns: github.com/aosp-mirror/platform_system_core adb/ and developer.android.com/tools/adb.
STAND_IN = """\
#!{python}
import os, pathlib, shutil, subprocess, sys, time
root = pathlib.Path({root!r})
mode = (root / "mode").read_text() if (root / "mode").exists() else ""
assert sys.argv[1] == "-s", "the serial must be named"
serial, command, *rest = sys.argv[2:]
def fail(text): sys.stderr.write(text + "\\n"); sys.exit(1)
if mode == "hang": time.sleep(100000)
if serial != "R5CT10ABCDE": fail(f"adb: device '{{serial}}' not found")
if mode == "offline": fail("adb: device offline")
if mode == "unauthorized":
    fail("adb: device unauthorized.\\nThis adb server's $ADB_VENDOR_KEYS is not set")
device = root / "device"
def there(path): return device / path.lstrip("/")
def copy(source, target):
    shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
if command == "push":
    local, remote = rest
    if not there(remote).parent.is_dir():
        fail(f"adb: error: failed to copy '{{local}}' to '{{remote}}': remote secure_mkdirs failed")
    copy(pathlib.Path(local), there(remote))
elif command == "pull":
    remote, local = rest
    if not there(remote).exists():
        fail(f"adb: error: failed to stat remote object '{{remote}}': No such file or directory")
    copy(there(remote), pathlib.Path(local))
elif command == "shell":
    # adb joins its arguments with spaces; the device's shell reads the line.
    line = " ".join(rest).replace("/data/", f"{{device}}/data/")
    sys.exit(subprocess.run(["sh", "-c", line]).returncode)
"""


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """A folder that stands for the device, and a way to make it misbehave."""
    program = tmp_path / "bin" / "adb"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(python=sys.executable, root=str(tmp_path)))
    program.chmod(0o755)
    (tmp_path / "device" / "data" / "local" / "tmp").mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return tmp_path


@pytest.fixture
def transport():
    return open_transport("adb:R5CT10ABCDE")


def test_files_and_folders_go_there_and_back(phone, transport, tmp_path):
    source = tmp_path / "model folder"
    source.mkdir()
    (source / "a.bin").write_bytes(b"\0\1\2")
    transport.push(source, "/data/local/tmp/run 1/model")
    assert (phone / "device/data/local/tmp/run 1/model/a.bin").read_bytes() == b"\0\1\2"
    transport.pull("/data/local/tmp/run 1/model", tmp_path / "back" / "model")
    assert (tmp_path / "back/model/a.bin").read_bytes() == b"\0\1\2"


def test_arguments_survive_the_shell_of_the_device(phone, transport):
    arguments = ["two words", "$HOME", "a'b\"c", "; false", "*"]
    done = transport.run([sys.executable, "-c", "import sys; print(sys.argv[1:])", *arguments], timeout_s=120)
    assert done.stdout.strip() == str(arguments)


def test_environment_and_exit_code_come_back(phone, transport):
    code = "import os, sys; sys.exit(int(os.environ['CODE']))"
    assert transport.run([sys.executable, "-c", code], timeout_s=120, env={"CODE": "9"}).returncode == 9


@pytest.mark.parametrize(
    ("mode", "remedy"), [("offline", "Reconnect the device"), ("unauthorized", "allow USB debugging")]
)
def test_a_device_that_refuses(phone, transport, mode, remedy):
    (phone / "mode").write_text(mode)
    with pytest.raises(ToolFailedError, match="adb R5CT10ABCDE cannot be reached") as caught:
        transport.run(["true"], timeout_s=120)
    assert mode in caught.value.found
    assert remedy in caught.value.remedy


def test_a_device_that_is_not_connected(phone):
    with pytest.raises(ToolFailedError, match="cannot be reached") as caught:
        open_transport("adb:emulator-5554").push(phone / "bin", "/data/local/tmp/x")
    assert "adb devices" in caught.value.remedy


def test_a_device_that_hangs_is_given_up(phone, transport):
    (phone / "mode").write_text("hang")
    with pytest.raises(ToolFailedError, match="took longer than 1 s"):
        transport.run(["true"], timeout_s=1)


def test_a_program_that_fails_on_the_device_is_no_transport_error(phone, transport):
    done = transport.run(["sh", "-c", "echo error: bad model >&2; exit 1"], timeout_s=120)
    assert (done.returncode, done.stderr.strip()) == (1, "error: bad model")


def test_fetching_what_is_not_there_says_what(phone, transport, tmp_path):
    with pytest.raises(ToolFailedError, match="Fetching") as caught:
        transport.pull("/data/local/tmp/nothing", tmp_path / "x")
    assert "No such file" in caught.value.found


def test_no_adb(monkeypatch, tmp_path, transport):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="adb is needed") as caught:
        transport.run(["true"], timeout_s=120)
    assert "platform-tools" in caught.value.remedy


@pytest.mark.parametrize("serial", ["", "-e", "a b", "x;y", str(Path("/tmp"))])
def test_a_serial_that_is_none_is_the_users_mistake(serial):
    with pytest.raises(InputError, match="serial of the device cannot be read"):
        open_transport(f"adb:{serial}")
