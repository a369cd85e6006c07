"""The journal of measurements: a chain of hashes from the manifest through every run to the report."""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel

from edgedeploy.bundle.manifest import Manifest, Measurement, Measurements, to_json
from edgedeploy.bundle.report import render_report
from edgedeploy.bundle.tree import MANIFEST, MEASUREMENTS, REPORT
from edgedeploy.version import VERSION

#: Appending replaces two files, and something may stop it in between.
STALE_REPORT = f"{REPORT} lacks the last run: appending it was interrupted; the next run renders it anew"


def appended(manifest: Manifest, measurements: Measurements, run: Measurement) -> tuple[Measurements, bytes]:
    """Add a run at the end of the chain; return the new journal and the report that belongs to it."""
    last = measurements.runs[-1] if measurements.runs else None
    before = _hash(last) if last else measurements.manifest_sha256
    runs = [*measurements.runs, run.model_copy(update={"previous_sha256": before})]
    grown = _as_read(measurements.model_copy(update={"runs": runs}))
    report = render_report(manifest, grown).encode()
    sealed = grown.model_copy(
        update={
            "report_sha256": hashlib.sha256(report).hexdigest(),
            "report_before_sha256": measurements.report_sha256,
            "report_by": VERSION,
        }
    )
    return sealed.model_copy(update={"sha256": _whole(sealed)}), report


def problems(
    manifest: Manifest, manifest_json: bytes, measurements: Measurements, measurements_json: bytes, report: bytes
) -> tuple[list[str], str]:
    """Say what is wrong with the three records that no other hash covers, and what is worth a note.

    Args:
        manifest, measurements: as read from ``manifest_json`` and ``measurements_json``, the files' bytes.
        report: the bytes of report.md.
    """
    found = []
    if to_json(manifest) != manifest_json or hashlib.sha256(manifest_json).hexdigest() != measurements.manifest_sha256:
        found.append(f"{MANIFEST} was changed")
    expected = measurements.manifest_sha256
    for index, run in enumerate(measurements.runs):
        if run.previous_sha256 != expected:
            found.append(f"{MEASUREMENTS}: run {index + 1} does not follow the one before")
        expected = _hash(run)
    if not measurements.runs:
        found.append(f"{MEASUREMENTS} has no run")
    if to_json(measurements) != measurements_json or _whole(measurements) != measurements.sha256:
        found.append(f"{MEASUREMENTS} was changed")
    given, note = hashlib.sha256(report).hexdigest(), ""
    if given == measurements.report_before_sha256:
        note = STALE_REPORT
    elif given != measurements.report_sha256:
        found.append(f"{REPORT} was changed")
    elif not found and measurements.report_by == VERSION and render_report(manifest, measurements).encode() != report:
        found.append(f"{REPORT} does not say what {MANIFEST} and {MEASUREMENTS} say")
    return found, note


def _hash(record: BaseModel) -> str:
    return hashlib.sha256(to_json(record)).hexdigest()


def _whole(measurements: Measurements) -> str:
    return _hash(measurements.model_copy(update={"sha256": ""}))


def _as_read(measurements: Measurements) -> Measurements:
    """The journal as whoever reads the file gets it, so that both make the same hashes and the same report of it."""
    return Measurements.model_validate(json.loads(to_json(measurements)))
