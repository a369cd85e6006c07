"""The smallest folders that count as bundles: for what is done to a bundle as a whole."""

from __future__ import annotations

import json
from pathlib import Path


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
