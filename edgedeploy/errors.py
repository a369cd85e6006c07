"""The one family of errors a user may see: what happened, what was found, what to do, and the exit code."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any

#: Characters of a traceback, counted from its end, that are told.
MOST_TRACE = 8_000


class ExitCode(IntEnum):
    """What the process tells a release pipeline."""

    OK = 0
    BUDGET_FAILED = 1
    BAD_INPUT = 2
    UNVERIFIED = 3
    MISSING_TOOL = 4
    TOOL_FAILED = 5
    BUG = 70
    INTERRUPTED = 130


#: Several targets end with the first of these that occurred.
PRECEDENCE: tuple[ExitCode, ...] = (
    ExitCode.BUG,
    ExitCode.INTERRUPTED,
    ExitCode.BAD_INPUT,
    ExitCode.MISSING_TOOL,
    ExitCode.TOOL_FAILED,
    ExitCode.BUDGET_FAILED,
    ExitCode.UNVERIFIED,
    ExitCode.OK,
)


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the exit code that stands for several targets (``OK`` for none)."""
    occurred = set(codes)
    return next((code for code in PRECEDENCE if code in occurred), ExitCode.OK)


class EdgeDeployError(Exception):
    """Base of every error meant for a user; never raised itself.

    Args:
        what: one sentence, what happened.
        found: what was seen, with the names and values that let the user find it.
        remedy: what to do about it.
    """

    exit_code: ExitCode = ExitCode.BUG

    def __init__(self, what: str, *, found: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.found = found
        self.remedy = remedy

    def __str__(self) -> str:
        lines = [self.what]
        if self.found:
            lines.append(f"  found:  {self.found}")
        if self.remedy:
            lines.append(f"  remedy: {self.remedy}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` makes the same error of."""
        return {"kind": type(self).__name__, "what": self.what, "found": self.found, "remedy": self.remedy}

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> EdgeDeployError:
        """The error that `to_json` described; one of a class that is not known here is a `ToolFailedError`."""
        kinds: tuple[type[EdgeDeployError], ...] = (
            InputError, UntrustedCodeError, UnsupportedOpError, MissingToolError, ToolFailedError, CrashError
        )  # fmt: skip
        kind = next((item for item in kinds if item.__name__ == fields.get("kind")), ToolFailedError)
        error = kind.__new__(kind)  # subclasses compose their sentences; these are composed already
        texts = (str(fields.get(name, "")) for name in ("what", "found", "remedy"))
        EdgeDeployError.__init__(error, next(texts), found=next(texts), remedy=next(texts))
        if isinstance(error, UnsupportedOpError):
            error.ops = tuple((str(op), str(where), str(why)) for op, where, why in fields.get("ops", ()))
        return error


class CrashError(EdgeDeployError):
    """A defect of this package or of a backend; ``found`` is the traceback."""

    exit_code = ExitCode.BUG

    @classmethod
    def of(cls, error: BaseException) -> CrashError:
        """Describe an exception that nothing expected."""
        trace = "".join(traceback.format_exception(error)).rstrip()
        return cls(
            "edgedeploy failed where it should not have.",
            found=trace[-MOST_TRACE:],
            remedy="This is a bug in edgedeploy: please report it with the lines above.",
        )


class InputError(EdgeDeployError):
    """The command, the model, the data or a profile is wrong."""

    exit_code = ExitCode.BAD_INPUT


class UntrustedCodeError(InputError):
    """Loading would run code that the user has not vouched for."""


class UnsupportedOpError(InputError):
    """The target cannot run an op of the model.

    Args:
        backend: the backend that refuses.
        ops: (op type, where it stands in the model, why it is refused) for each refused op.
        supported: the op types that the backend takes.
    """

    def __init__(self, backend: str, ops: Iterable[tuple[str, str, str]], supported: Iterable[str] = ()) -> None:
        self.ops = tuple(ops)
        listing = "; ".join(
            f"{op_type} at {where!r}" + (f" ({why})" if why else "") for op_type, where, why in self.ops
        )
        takes = ", ".join(sorted(supported))
        super().__init__(
            f"{backend} does not support {len(self.ops)} op(s) of this model.",
            found=listing,
            remedy=f"Replace them in the model; supported are: {takes}" if takes else "Replace them in the model.",
        )

    def to_json(self) -> dict[str, Any]:
        """See `EdgeDeployError.to_json`; with the refused ops."""
        return {**super().to_json(), "ops": [list(op) for op in self.ops]}


class MissingToolError(EdgeDeployError):
    """No artefact or verdict is possible because a vendor tool is not installed."""

    exit_code = ExitCode.MISSING_TOOL

    def __init__(self, tool: str, *, install: str, found: str = "") -> None:
        super().__init__(f"{tool} is needed and was not found.", found=found, remedy=install)


class ToolFailedError(EdgeDeployError):
    """A vendor tool, a transport or the device itself failed."""

    exit_code = ExitCode.TOOL_FAILED
