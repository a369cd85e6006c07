"""Standard output and error that never change how a command ends, and the one way text gets there."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from edgedeploy.errors import EdgeDeployError
from edgedeploy.plain_text import printable
from edgedeploy.quality.strict_json import dumps

#: What stands for the characters of our own tables and sentences where the encoding lacks them.
_ASCII = {
    "≤": "<=", "≥": ">=", "→": "->", "–": "-", "—": "-", "…": "...", "µ": "u", "×": "x", "·": ".", "±": "+-",
    "“": '"', "”": '"', "’": "'", "²": "^2", "°": " deg",
}  # fmt: skip
_ERRORS = "edgedeploy-ascii"


def say(text: str, *, lines: bool = False, err: bool = False) -> None:
    """Print one line; what strangers wrote in it has its escape codes and line breaks shown, not obeyed.

    Args:
        lines: the text was put together of lines that are harmless each (`error_text`, `indented`, `joined`, JSON).
    """
    stream = sys.stderr if err else sys.stdout
    if stream is not None:
        print(printable(text, lines=lines, limit=sys.maxsize), file=stream, flush=True)


def say_json(value: object) -> None:
    """Print a value as strict JSON in ASCII."""
    say(dumps(value), lines=True)


def error_text(error: EdgeDeployError) -> str:
    """An error as it is shown: what happened, what was found and the remedy, further lines of each set in."""
    parts = (("", error.what), ("  found:  ", error.found), ("  remedy: ", error.remedy))
    lines = []
    for label, text in parts:
        shown = printable(text, lines=True).splitlines() if text else []
        lines += [f"{label if not number else '          '}{line}" for number, line in enumerate(shown)]
    return "\n".join(lines)


@contextlib.contextmanager
def steady_streams() -> Iterator[None]:
    """Replace stdout and stderr by streams that take every character and outlive their reader.

    A reader that went away (``| head``) is no error of the command; a full disk behind ``>`` is told on stderr. The
    exit code stays what was found in either case.
    """
    codecs.register_error(_ERRORS, _spelt)
    before = sys.stdout, sys.stderr
    out, err = _steady(sys.stdout, 1), _steady(sys.stderr, 2)
    sys.stdout, sys.stderr = out.text, err.text
    try:
        yield
    finally:
        for stream in (out, err):
            with contextlib.suppress(OSError, ValueError):
                stream.text.flush()
        sys.stdout, sys.stderr = before
        if out.failed not in (0, errno.EPIPE):
            told = f"warning: standard output was not written: {os.strerror(out.failed)}\n"
            with contextlib.suppress(OSError):
                os.write(2, told.encode())


class _Descriptor(io.RawIOBase):
    """A file descriptor that takes what is written whether or not anybody reads it; ``failed`` is an errno, or 0."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self.failed = descriptor, 0

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        try:
            return os.isatty(self._descriptor)
        except OSError:
            return False

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        done = 0
        while done < len(view) and not self.failed:
            try:
                done += os.write(self._descriptor, view[done:])
            except BlockingIOError:
                select.select([], [self._descriptor], [], 1.0)
            except OSError as error:
                self.failed = error.errno or errno.EIO
        return len(view)


@dataclass(frozen=True)
class _Steady:
    """A text stream, and the descriptor below it where it has one."""

    text: TextIO
    descriptor: _Descriptor | None = None

    @property
    def failed(self) -> int:
        return self.descriptor.failed if self.descriptor else 0


def _steady(stream: TextIO | None, number: int) -> _Steady:
    """A steady stream over ``stream``'s descriptor; over ``number``, closed as it is, where there is no stream.

    A stand-in without a descriptor (a notebook's, a test's) is kept.
    """
    if stream is not None:
        try:
            stream.flush()
            number = stream.fileno()
        except io.UnsupportedOperation:
            return _Steady(stream)
        except (OSError, ValueError):
            pass
    descriptor = _Descriptor(number)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = io.TextIOWrapper(io.BufferedWriter(descriptor), encoding, _ERRORS, line_buffering=True)
    return _Steady(text, descriptor)


def _spelt(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(
        _ASCII.get(item) or item.encode("unicode_escape", "surrogatepass").decode() for item in found
    ), error.end


def indented(text: str) -> str:
    """A note, its further lines set in: so no line of it passes for another message."""
    return printable(text, lines=True).replace("\n", "\n      ")
