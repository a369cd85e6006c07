"""What fickling and picklescan call dangerous, we refuse."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import others

from edgedeploy.model.scan import scan_file

fickling = pytest.importorskip("fickling.analysis", reason="pip install edgedeploy[test]")
scanner = pytest.importorskip("picklescan.scanner", reason="pip install edgedeploy[test]")


def unsafe_names() -> list[tuple[str, str]]:
    return [
        (module, name if name != "*" else "anything")
        for module, names in scanner._unsafe_globals.items()
        for name in (names if not isinstance(names, str) else [names])
    ]


def call(module: str, name: str) -> bytes:
    """A pickle that calls module.name()."""
    return pickle.PROTO + b"\x02" + f"c{module}\n{name}\n".encode() + b")R."


def archive(program: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("archive/data.pkl", program)
        out.writestr("archive/version", b"3\n")
    return file.getvalue()


def test_everything_on_picklescans_list_is_refused(tmp_path):
    names = unsafe_names()
    assert len(names) > 50
    path = tmp_path / "m.pt"
    missed = []
    for module, name in names:
        path.write_bytes(archive(call(module, name)))
        if not scan_file(path).dangerous:
            missed.append(f"{module}.{name}")
    assert missed == []


@pytest.mark.parametrize("name", [name for name, (file, _) in others.TRICKS.items() if file == "m.pt"])
def test_what_the_oracles_call_dangerous_is_refused(tmp_path, name):
    path = others.make(name, tmp_path, tmp_path / "canary")
    try:
        found = scanner.scan_file_path(str(path))
        dangerous = bool(found.issues_count or found.scan_err)
    except (MemoryError, ValueError):
        dangerous = True
    if dangerous:
        assert scan_file(path).dangerous


def test_fickling_agrees_on_programs(tmp_path):
    from fickling.fickle import Pickled

    path = tmp_path / "m.pt"
    dangerous = 0
    for module, name in unsafe_names():
        try:
            severity = fickling.check_safety(Pickled.load(call(module, name))).severity
        except Exception:  # what fickling cannot read, we must refuse too
            severity = fickling.Severity.OVERTLY_MALICIOUS
        if severity > fickling.Severity.LIKELY_SAFE:
            dangerous += 1
            path.write_bytes(archive(call(module, name)))
            assert scan_file(path).dangerous, f"{module}.{name}"
    assert dangerous > 50
