"""The serial line over a pseudo-terminal: the other end is played by the test."""

from __future__ import annotations

import contextlib
import os
import pty
import sys
import threading
import time
import tty

import pytest

from edgedeploy.errors import InputError, MissingToolError, ToolFailedError
from edgedeploy.targets.transports import open_serial, open_transport


@pytest.fixture
def board():
    """The board's end of a line, as a file descriptor, and the address of the other end."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    yield ours, f"serial:{os.ttyname(theirs)}"
    for descriptor in (ours, theirs):
        with contextlib.suppress(OSError):  # the test may have unplugged it
            os.close(descriptor)


def test_lines_come_whole_however_they_arrive(board):
    wire, address = board
    with open_serial(f"{address}@115200") as line:

        def speak():
            for part in (b"rea", b"dy\r\nsecond\n", b"th", b"ird\n"):
                os.write(wire, part)
                time.sleep(0.05)

        speaker = threading.Thread(target=speak)
        speaker.start()
        assert [line.read_line(120) for _ in range(3)] == ["ready", "second", "third"]
        speaker.join()


def test_what_is_written_arrives(board):
    wire, address = board
    with open_serial(address) as line:
        line.write(bytes(range(256)))
        received = b""
        while len(received) < 256:
            received += os.read(wire, 256)
        assert received == bytes(range(256))


def test_a_silent_board_is_given_up_with_what_it_said_last(board):
    wire, address = board
    with open_serial(address) as line:
        os.write(wire, b"half a li")
        with pytest.raises(ToolFailedError, match=r"sent no line for 0\.5 s") as caught:
            line.read_line(0.5)
        assert "half a li" in caught.value.found
        assert "115200 baud" in caught.value.remedy


def test_an_unplugged_board(board):
    wire, address = board
    with open_serial(address) as line:
        os.close(wire)
        with pytest.raises(ToolFailedError, match="Reading from the board"):
            line.read_line(2)


def test_a_port_that_is_not_there():
    with pytest.raises(ToolFailedError, match="/dev/ttyNONE cannot be opened"):
        open_serial("serial:/dev/ttyNONE")


def test_pyserial_missing_says_which_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(MissingToolError, match="pyserial") as caught:
        open_serial("serial:/dev/ttyACM0")
    assert "edgedeploy[serial]" in caught.value.remedy


@pytest.mark.parametrize("address", ["serial:", "serial:/dev/ttyACM0@fast", "serial:/dev/ttyACM0@0", "ssh:a@b", "x"])
def test_an_address_that_is_no_serial_line(address):
    with pytest.raises(InputError):
        open_serial(address)


def test_a_serial_line_cannot_carry_files():
    with pytest.raises(InputError, match="cannot carry files"):
        open_transport("serial:/dev/ttyACM0")
