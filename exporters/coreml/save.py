"""Saves packages so that two identical runs give identical bytes."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgedeploy.exporters.coreml.convert import quiet

#: Written by coremltools and different at each run.
_VOLATILE = ("com.github.apple.coremltools.conversion_date",)


def save_package(model: Any, path: Path, metadata: Mapping[str, str], user_metadata: Mapping[str, str]) -> Path:
    """Save an ``MLModel`` as ``path`` (an .mlpackage folder, replaced if it exists).

    Args:
        model: from coremltools.
        path: where to.
        metadata: "author", "license", "version", "description".
        user_metadata: further key-value pairs, shown by Xcode.
    """
    for key, attribute in (
        ("author", "author"),
        ("license", "license"),
        ("version", "version"),
        ("description", "short_description"),
    ):
        if key in metadata:
            setattr(model, attribute, metadata[key])
    for key, value in user_metadata.items():
        model.user_defined_metadata[key] = value
    if path.exists():
        shutil.rmtree(path)
    with quiet():
        model.save(str(path))
    _normalise(path)
    return path


def _normalise(package: Path) -> None:
    """Fixed identifiers in the manifest, deterministic protobuf, no dates."""
    from coremltools.proto import Model_pb2

    manifest = package / "Manifest.json"
    entries = json.loads(manifest.read_text())
    renamed = {}
    root = ""
    for identifier, item in sorted(entries["itemInfoEntries"].items(), key=lambda pair: str(pair[1]["path"])):
        fixed = str(uuid.uuid5(uuid.NAMESPACE_URL, f"edgedeploy:{item['path']}")).upper()
        renamed[fixed] = item
        if identifier == entries["rootModelIdentifier"]:
            root = fixed
            model = package / "Data" / item["path"]
    entries["itemInfoEntries"], entries["rootModelIdentifier"] = renamed, root
    manifest.write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n")
    spec = Model_pb2.Model()
    spec.ParseFromString(model.read_bytes())
    for key in _VOLATILE:
        spec.description.metadata.userDefined.pop(key, None)
    model.write_bytes(spec.SerializeToString(deterministic=True))
