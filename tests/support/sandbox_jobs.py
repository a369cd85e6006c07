"""What workers are asked to do in the tests: harmless work, and each way of going wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from edgedeploy.errors import InputError, UnsupportedOpError
from edgedeploy.sandbox.watch import arm


def echo(arguments, channel):
    channel.note("begun")
    for item in channel.track(arguments, what="Items", total=len(arguments)):
        channel.event(item)
    return {"sum": sum(arguments), "confinement": channel.confinement}


def refuse(arguments, channel):
    raise UnsupportedOpError("Theirs", [("Relu6", "a/b", "no kernel")], ["Relu"])


def say_no(arguments, channel):
    raise InputError("No.", found="this", remedy="that")


def defect(arguments, channel):
    return {}["absent"]


def spin(step, channel):
    arm(step)
    while True:
        pass


def wait(step, channel):
    arm(step)
    time.sleep(1e6)


def hoard(arguments, channel):
    arm("load")
    return len([bytearray(2**26) for _ in range(10_000)])


def signal_itself(number, channel):
    arm("capture")
    os.kill(os.getpid(), number)
    time.sleep(1e6)


def write(path, channel):
    try:
        Path(path).write_text("written")
    except OSError as error:
        return error.strerror
    return "written"


def change(folder, channel):
    """Try every way of changing a folder's content; returns those that worked."""
    folder = Path(folder)
    ways = {
        "write": lambda: (folder / "new").write_text(""),
        "overwrite": lambda: (folder / "old").write_text(""),
        "truncate": lambda: os.truncate(folder / "old", 0),
        "remove": (folder / "old").unlink,
        "rename": lambda: (folder / "old").rename(folder / "other"),
        "mkdir": (folder / "sub").mkdir,
        "link": lambda: (folder / "link").symlink_to("/"),
        "hardlink": lambda: (folder / "hard").hardlink_to(folder / "old"),
        "fifo": lambda: os.mkfifo(folder / "fifo"),
    }
    worked = []
    for name, way in ways.items():
        try:
            way()
            worked.append(name)
        except OSError:
            pass
    return worked


def connect(port, channel):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError as error:
        return error.strerror
    return "connected"


def kill(pid, channel):
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError as error:
        return error.strerror
    return "killed"


def shout(arguments, channel):
    print("\x1b]0;title\x07 on stdout")
    print("\x1b[31m on stderr", file=sys.stderr)
    os.write(2, b"\x1b[2J from a library\n")
    return None


def babble(text, channel):
    os.write(channel._descriptor, text.encode())
    return None


def pids(path, channel):
    """Start a child, write both process ids down, and wait for ever."""
    code = "import time; from edgedeploy.sandbox.ties import die_with_starter; die_with_starter(); time.sleep(1e6)"
    child = subprocess.Popen([sys.executable, "-P", "-c", code], start_new_session=True)
    Path(path).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(1e6)
