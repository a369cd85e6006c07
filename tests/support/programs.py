"""Programs that some tests drive and that no pip package brings: where they are, or a skip that says what to install.

`.ci/run` installs them all and lets no test be skipped.
"""

from __future__ import annotations

import os
import shutil

import pytest

#: Debian packages by program.
PACKAGES = {
    "arm-none-eabi-g++": "gcc-arm-none-eabi libnewlib-arm-none-eabi libstdc++-arm-none-eabi-newlib",
    "cmake": "cmake",
    "git": "git",
    "make": "make",
    "qemu-system-arm": "qemu-system-arm",
    "qemu-x86_64": "qemu-user",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
}


def find(program: str) -> str | None:
    """The absolute path of a program, the folders of system programs included (sshd lies there)."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def lacking(*programs: str) -> str:
    """What to install for programs that are not here; "" where all are."""
    missing = [program for program in programs if find(program) is None]
    packages = sorted({PACKAGES[program] for program in missing})
    return f"needs {', '.join(missing)}: apt install {' '.join(packages)}" if missing else ""


def require(*programs: str) -> list[str]:
    """The programs' paths; skips the test where one is missing."""
    if told := lacking(*programs):
        pytest.skip(told)
    return [str(find(program)) for program in programs]


def needs(*programs: str) -> pytest.MarkDecorator:
    """A mark that skips a test where a program is missing."""
    told = lacking(*programs)
    return pytest.mark.skipif(bool(told), reason=told)
