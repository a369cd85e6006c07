"""This machine as a device, and addresses that are none."""

from __future__ import annotations

import sys

import pytest
from processes import ends

from edgedeploy.errors import InputError, MissingToolError, ToolFailedError
from edgedeploy.targets.transports import open_transport


def test_files_come_and_go_and_programs_run(tmp_path):
    transport = open_transport("local")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_text("x")
    transport.push(tmp_path / "folder", str(tmp_path / "there" / "folder"))
    transport.pull(str(tmp_path / "there" / "folder" / "a"), tmp_path / "back" / "a")
    assert (tmp_path / "back" / "a").read_text() == "x"
    done = transport.run([sys.executable, "-c", "print('$HOME')"], timeout_s=120)
    assert (done.returncode, done.stdout) == (0, "$HOME\n")


def test_a_hanging_program_is_ended_with_its_children(tmp_path):
    child = tmp_path / "child"
    for timeout_s in (0.5, 5, 50):  # until even a busy machine gets so far
        with pytest.raises(ToolFailedError, match="took longer"):
            open_transport("local").run(["sh", "-c", f"sleep 100000 & echo $! > {child}; wait"], timeout_s=timeout_s)
        if child.is_file() and (said := child.read_text()).endswith("\n"):
            break
    assert ends(int(said))


def test_a_missing_program_and_a_missing_file(tmp_path):
    with pytest.raises(MissingToolError, match="no-such-program"):
        open_transport("local").run(["no-such-program"], timeout_s=120)
    with pytest.raises(ToolFailedError, match="cannot be fetched"):
        open_transport("local").pull(str(tmp_path / "nothing"), tmp_path / "x")


@pytest.mark.parametrize("address", ["", "usb", "localhost", "telnet:x", "local:x"])
def test_an_unknown_address_names_the_known_ones(address):
    with pytest.raises(InputError, match="cannot be read") as caught:
        open_transport(address)
    assert "ssh:USER@HOST" in caught.value.remedy
