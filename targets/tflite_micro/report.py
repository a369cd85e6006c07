"""The text that the firmware prints, read back: arena, outputs of the golden vectors, PASS or FAIL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from edgedeploy.errors import ToolFailedError

HEADER = "EDGEDEPLOY"
FORMAT = "1"


@dataclass(frozen=True)
class OutputRecord:
    """One output of one golden vector: raw stored codes."""

    vector: int
    output: int
    crc: int
    codes: bytes


@dataclass(frozen=True)
class GoldenRecord:
    """The board's own verdict on one vector; time and instructions are 0 where it does not count them."""

    vector: int
    passed: bool
    largest_difference: int
    elapsed_us: int
    instructions: int = 0


@dataclass
class FirmwareReport:
    """A whole report."""

    sha256_prefix: str
    arena_used_bytes: int | None = None
    arena_size_bytes: int | None = None
    outputs: list[OutputRecord] = field(default_factory=list)
    golden: list[GoldenRecord] = field(default_factory=list)
    passed: bool | None = None
    error: str = ""


def read_report(lines: Iterable[str]) -> FirmwareReport:
    """Read lines up to RESULT; what comes before the header (a boot message) is skipped.

    Raises:
        ToolFailedError: for another format, or a line that is none of the format's.
    """
    report: FirmwareReport | None = None
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        if word == HEADER:
            version, _, prefix = rest.partition(" ")
            if version != FORMAT:
                raise ToolFailedError("The firmware's report has another format.", found=line, remedy="Flash it again.")
            report = FirmwareReport(prefix)
        elif report is not None:
            try:
                _enter(report, word, rest.split())
            except (ValueError, IndexError):
                raise ToolFailedError("A line of the firmware's report cannot be read.", found=repr(line)) from None
            if report.passed is not None:
                return report
    raise ToolFailedError("The firmware's report ended before its RESULT line.")


def _enter(report: FirmwareReport, word: str, fields: list[str]) -> None:
    if word == "ARENA":
        report.arena_used_bytes, report.arena_size_bytes = int(fields[0]), int(fields[1])
    elif word == "OUTPUT":
        record = OutputRecord(int(fields[0]), int(fields[1]), int(fields[2], 16), bytes.fromhex(fields[3]))
        report.outputs.append(record)
    elif word == "GOLDEN":
        if fields[1] not in ("PASS", "FAIL"):
            raise ValueError(fields[1])
        instructions = int(fields[4]) if len(fields) > 4 else 0  # firmware of an earlier edgedeploy does not say
        report.golden.append(
            GoldenRecord(int(fields[0]), fields[1] == "PASS", int(fields[2]), int(fields[3]), instructions)
        )
    elif word == "RESULT":
        if fields[0] not in ("PASS", "FAIL"):
            raise ValueError(fields[0])
        report.passed = fields[0] == "PASS"
    elif word == "ERROR":
        report.error = " ".join(fields)
