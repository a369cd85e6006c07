"""Every file of the corpus is refused by the loader and by the scanner, and nothing of it runs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import others
import pt2

from edgedeploy.errors import InputError
from edgedeploy.model.load import load_model
from edgedeploy.model.scan import scan_file

ALL = [*pt2.TRICKS, *others.TRICKS]
#: What torch itself runs, unguarded: the tricks are real. (The others need a writable file, memory or time.)
RUN_BY_TORCH = (
    "pt2-samples-old-save", "pt2-samples-plain-save", "pt2-weight-protocol-0", "pt2-weight-old-save",
    "pt2-weights-older-layout", "pt2-constants-older-layout", "pt2-opaque-called-raw", "pt2-inner-name-upper-case",
    "pt2-folder-upper-case", "pt2-decoy-table", "pt2-shape-is-source", "pt2-name-is-source",
)  # fmt: skip


def make(name: str, folder: Path, canary: Path) -> Path:
    return (pt2 if name in pt2.TRICKS else others).make(name, folder, canary)


def in_child(work) -> int:
    """Run in a forked process; its exit status."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(work())
        except BaseException:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def files(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ALL)
def test_it_is_refused_and_nothing_runs(tmp_path, name):
    folder, canary = tmp_path / "model", tmp_path / "canary"
    folder.mkdir()
    path = make(name, folder, canary)
    before = files(tmp_path)

    def load() -> int:
        try:
            load_model(path)
        except InputError:
            return 2
        return 0

    def scan() -> int:
        return 2 if scan_file(path).dangerous else 0

    if name != "pt2-guard-is-source":  # dropped, not refused: see below
        assert in_child(load) == 2
        assert in_child(scan) == 2
    assert files(tmp_path) == before


def test_guards_of_a_program_are_dropped(tmp_path):
    path = make("pt2-guard-is-source", tmp_path, tmp_path / "canary")
    model = load_model(path)
    program = model.program()
    assert program is not None
    assert program._guards_code == []
    program.module()
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", RUN_BY_TORCH)
def test_the_trick_is_real(tmp_path, name):
    path = make(name, tmp_path, tmp_path / "canary")

    def load() -> int:
        import logging

        import torch

        logging.disable()
        with path.open("rb") as file:
            torch.export.load(file).module(check_guards=False)
        return 0

    in_child(load)
    assert (tmp_path / "canary").exists()


def test_the_table_explains_every_trick():
    table = (Path(__file__).parent / "README.md").read_text()
    assert [name for name in ALL if f"| `{name}` |" not in table] == []


def test_the_command_says_what_it_found(tmp_path, capsys):
    from edgedeploy.cli import main

    path = make("pt-save", tmp_path, tmp_path / "canary")
    with pytest.raises(SystemExit) as ended:
        main(["scan", str(path), "--json"])
    assert ended.value.code == 2
    report = json.loads(capsys.readouterr().out)
    assert report["container"] == "pickle"
    assert report["pickles"] == {"data.pkl": ["posix.system"]}
    assert report["findings"][0]["severity"] == "danger"


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_genuine_archive_is_clean(tmp_path, dynamic):
    path = pt2.write(tmp_path / "m.pt2", pt2.genuine(dynamic))
    scan = scan_file(path)
    assert not scan.dangerous
    assert scan.operators == ("torch.ops.aten.linear.default",)
    load_model(path)
