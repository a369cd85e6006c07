"""Firmware that reports: its outputs, arena and times become device (or emulator) figures."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterator

import numpy as np

from edgedeploy.errors import ToolFailedError
from edgedeploy.evidence import Evidence, Figure
from edgedeploy.exporters.tflite_micro.codes import real, stored
from edgedeploy.exporters.tflite_micro.estimates import KIB, STACK_KB
from edgedeploy.exporters.tflite_micro.firmware.bundle import vector_crc
from edgedeploy.interfaces import Artefact, RunJob, RunResult
from edgedeploy.targets.tflite_micro.report import FirmwareReport, read_report
from edgedeploy.targets.transports.serial import SerialLine

TIMEOUT_S = 60.0


def run_on_board(artefact: Artefact, job: RunJob) -> RunResult:
    """Ask the board for its report over ``serial:PORT`` and read it.

    Raises:
        ToolFailedError: no report in time, or the board runs another model.
    """
    with SerialLine.parse(job.device.removeprefix("serial:")) as line:
        # Any byte asks firmware built with EDGEDEPLOY_REPEAT for a report; others report when they are reset.
        line.write(b"\n")
        report = read_report(_lines(line))
        place = line.describe()
    return result_of(report, artefact, job, Evidence.DEVICE, place)


def result_of(report: FirmwareReport, artefact: Artefact, job: RunJob, evidence: Evidence, place: str) -> RunResult:
    """Check a report against the artefact and make a result of it.

    Raises:
        ToolFailedError: for another model, an error the firmware reports, or vectors that are not the samples'.
    """
    own = hashlib.sha256(artefact.path.read_bytes()).hexdigest()
    expected = str(artefact.details.get("firmware_sha256", own))
    if not report.sha256_prefix or not expected.startswith(report.sha256_prefix):
        raise ToolFailedError(
            f"The firmware on {place} holds another model.",
            found=f"{report.sha256_prefix or 'no hash'} where the artefact is {expected[:16]}",
            remedy="Build and flash the firmware of this bundle.",
        )
    if report.error:
        raise ToolFailedError(f"The firmware on {place} failed.", found=report.error)
    count = len(report.golden)
    if count == 0:
        raise ToolFailedError(
            f"The firmware on {place} holds no golden vectors.",
            remedy="Build it from a bundle made where tflite-micro is installed.",
        )
    _same_vectors(report, artefact, job, place)
    outputs = {}
    for index, port in enumerate(artefact.contract.outputs):
        rows = [record.codes for record in report.outputs if record.output == index]
        try:
            codes = np.stack([np.frombuffer(row, np.dtype(port.dtype).newbyteorder("<")) for row in rows])
            outputs[port.source_name] = real(port, codes.reshape(len(rows), *(int(size) for size in port.shape)))
        except ValueError:
            raise ToolFailedError(f"Output {index} in the report of {place} has the wrong length.") from None
    return RunResult(
        outputs,
        evidence,
        _figures(report, evidence, place),
        (f"{place}: {sum(item.passed for item in report.golden)} of {count} golden vectors passed.",),
        {"arena_used_bytes": report.arena_used_bytes, "arena_size_bytes": report.arena_size_bytes, "place": place},
    )


def _figures(report: FirmwareReport, evidence: Evidence, place: str) -> tuple[Figure, ...]:
    figures = []
    if report.arena_used_bytes is not None:
        value = report.arena_used_bytes / KIB + STACK_KB
        figures.append(Figure("ram_kb", value, evidence, f"arena_used_bytes() on {place} + {STACK_KB:g} KB stack"))
    times = [item.elapsed_us / 1000 for item in report.golden if item.elapsed_us]
    if times and evidence is Evidence.DEVICE:
        median = statistics.median(times)
        how = f"median of {len(times)} golden vectors, the board's own clock"
        figures.append(Figure("latency_ms", median, evidence, how, statistics=(("p50", median),)))
    return tuple(figures)


def _same_vectors(report: FirmwareReport, artefact: Artefact, job: RunJob, place: str) -> None:
    samples = list(job.samples.take(len(report.golden)))
    for record in report.outputs:
        if record.vector >= len(samples):
            raise ToolFailedError(f"The firmware on {place} ran more vectors than there are samples.")
        sample = samples[record.vector]
        codes = [stored(port, [sample[port.source_name]])[0] for port in artefact.contract.inputs]
        if vector_crc(codes) != record.crc:
            raise ToolFailedError(
                f"The golden vectors in the firmware on {place} are not these samples.",
                found=f"vector {record.vector} has CRC {record.crc:08x}, the sample {vector_crc(codes):08x}",
                remedy="Flash the firmware of this bundle.",
            )


def _lines(line: SerialLine) -> Iterator[str]:
    while True:
        yield line.read_line(TIMEOUT_S)
