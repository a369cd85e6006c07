"""The smallest folders that count as bundles, and changes to real ones that only a check of what they say can find."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from edgedeploy.bundle.manifest import Manifest, Measurements
from edgedeploy.bundle.report import render_report

RECORDS = ("manifest.json", "measurements.json", "report.md")


def write_bundle(folder: Path, text: str, files: int = 3) -> Path:
    """A bundle whose every file holds ``text``."""
    (folder / "artefact").mkdir(parents=True)
    names = [f"artefact/part{index}.bin" for index in range(files)]
    for name in (*names, "report.md"):
        (folder / name).write_text(text)
    manifest = {"format": 1, "target": "phone", "backend": text, "artefact": {}, "files": dict.fromkeys(names, "")}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def bundle_text(folder: Path) -> str:
    """What `write_bundle` wrote, where the bundle is whole; else what is wrong."""
    manifest = json.loads((folder / "manifest.json").read_text())
    found = {(folder / name).read_text() for name in (*manifest["files"], "report.md")}
    return manifest["backend"] if found == {manifest["backend"]} else f"mixed: {found}"


def plain_json(value: object) -> bytes:
    """JSON as edgedeploy writes its records."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def reseal(folder: Path, change: Callable[[dict], object] | None = None, *, files: bool = True) -> Path:
    """Make a changed bundle agree with itself again, as anybody can who makes one.

    Args:
        change: what else to do to the manifest.
        files: hash the files as they are now.
    """
    manifest = json.loads((folder / "manifest.json").read_bytes())
    if files:
        manifest["files"] = {
            path.relative_to(folder).as_posix(): _sha256(path.read_bytes())
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.relative_to(folder).as_posix() not in RECORDS
        }
    if change:
        change(manifest)
    (folder / "manifest.json").write_bytes(plain_json(manifest))
    return rechain(folder)


def rechain(folder: Path, change: Callable[[dict], object] | None = None) -> Path:
    """Make the journal of measurements agree with itself and with the manifest again, and the report with both."""
    journal = json.loads((folder / "measurements.json").read_bytes())
    if change:
        change(journal)
    journal["manifest_sha256"] = before = _sha256((folder / "manifest.json").read_bytes())
    for run in journal["runs"]:
        run["previous_sha256"] = before
        before = _sha256(plain_json(run))
    try:
        manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
        report = render_report(manifest, Measurements.model_validate(journal))
        (folder / "report.md").write_text(report, encoding="utf-8")
    except ValueError:
        pass  # records of another form have no report
    journal["report_sha256"] = _sha256((folder / "report.md").read_bytes())
    journal["sha256"] = ""
    journal["sha256"] = _sha256(plain_json(journal))
    (folder / "measurements.json").write_bytes(plain_json(journal))
    return folder


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
