"""`deploy verify` of a bundle that is damaged, or that somebody made who knows how its hashes are made."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import stat
import warnings
import zipfile

import numpy as np
import onnx
import pytest
from bundles import rechain, reseal
from onnx import helper, numpy_helper


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle, tmp_path / "host")


def state(folder):
    """Everything about a folder that reading it must not change."""
    return {
        path.relative_to(folder).as_posix(): (
            stat.S_IMODE(path.stat().st_mode),
            path.stat().st_mtime_ns,
            path.stat().st_ino,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in folder.rglob("*")
    }


def test_verifying_changes_nothing(deploy, bundle):
    before = state(bundle)
    assert deploy("verify", bundle)[0] == 0
    assert state(bundle) == before
    assert [path.name for path in bundle.parent.iterdir()] == ["host"]


def test_a_resealed_bundle_passes(deploy, bundle):
    """What the tests below change is the only thing wrong with them."""
    assert deploy("verify", reseal(bundle))[0] == 0


TREE = {
    "a file": lambda b: (b / "artefact/evil.so").write_bytes(b"x"),
    "a hidden file": lambda b: (b / ".evil").write_text("x"),
    "an empty folder": lambda b: (b / "evil").mkdir(),
    "a FIFO": lambda b: os.mkfifo(b / "evil"),
    "a broken link": lambda b: (b / "evil").symlink_to("/nonexistent"),
    "a link to a folder": lambda b: (b / "artefact/etc").symlink_to("/etc"),
    "a link to a file": lambda b: (b / "evil").symlink_to("/etc/passwd"),
    "a loop of links": lambda b: (b / "artefact/up").symlink_to(".."),
    "a name that is no text": lambda b: (b / os.fsdecode(b"\xff\xfe")).touch(),
    "a name with escape codes": lambda b: (b / "a\n\x1b[31mb").write_text("x"),
    "a name by another case": lambda b: (b / "Deploy.lock").write_text("x"),
    "a second manifest": lambda b: (b / "artefact/manifest.json").write_text("{}"),
    "a file less": lambda b: (b / "golden/reference.npz").unlink(),
    "no report": lambda b: (b / "report.md").unlink(),
    "another report": lambda b: (b / "report.md").write_text("# all good"),
    "another lock": lambda b: (b / "deploy.lock").write_text("{}"),
    "a link for the artefact": lambda b: (
        shutil.move(b / "artefact/model.onnx", b.parent / "outside.onnx"),
        (b / "artefact/model.onnx").symlink_to(b.parent / "outside.onnx"),
    ),
    "a link for the report": lambda b: (
        shutil.move(b / "report.md", b.parent / "report.md"),
        (b / "report.md").symlink_to(b.parent / "report.md"),
    ),
    "an artefact that all may write": lambda b: (b / "artefact/model.onnx").chmod(0o666),
    "an artefact that runs": lambda b: (b / "artefact/model.onnx").chmod(0o755),
    "an artefact that nobody may read": lambda b: (b / "artefact/model.onnx").chmod(0),
    "a file that runs as its owner": lambda b: (b / "deploy.lock").chmod(0o4755),
    "a folder that all may write": lambda b: (b / "golden").chmod(0o777),
}


@pytest.mark.parametrize("what", TREE)
def test_anything_that_was_not_built_is_refused(deploy, bundle, what):
    TREE[what](bundle)
    code, _, error = deploy("verify", bundle)
    assert code == 2 and "not what was built" in error, error
    assert "\x1b" not in error


def test_a_socket_is_refused(deploy, bundle, monkeypatch):
    import socket

    monkeypatch.chdir(bundle)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("evil")
        assert deploy("verify", bundle)[0] == 2


def put(path, value):
    def change(manifest):
        *head, last = path.split("/")
        for key in head:
            manifest = manifest[int(key)] if isinstance(manifest, list) else manifest[key]
        manifest[last] = value

    return change


def nested(depth):
    value: dict = {}
    for _ in range(depth):
        value = {"a": value}
    return value


MANIFESTS = {
    "main outside": put("artefact/main", "artefact/../../../../../../etc/passwd"),
    "main absolute": put("artefact/main", "/etc/passwd"),
    "main elsewhere": put("artefact/main", "golden/inputs.npz"),
    "main missing": put("artefact/main", "artefact/nope.onnx"),
    "main the folder itself": put("artefact/main", "artefact/."),
    "main with NUL": put("artefact/main", "artefact/\0x"),
    "main empty": put("artefact/main", ""),
    "emulation absolute": put("artefact/details", {"emulation": "/etc/passwd"}),
    "emulation outside": put("artefact/details", {"emulation": "../../../etc/passwd"}),
    "emulation a number": put("artefact/details", {"emulation": 7}),
    "details too deep": put("artefact/details", nested(300)),
    "candidate too long": put("artefact/candidate", "x" * 5000),
    "candidate with NUL": put("artefact/candidate", "a\0b"),
    "candidate a path": put("artefact/candidate", "../../x"),
    "backend unknown": put("backend", "evil"),
    "backend a module": put("backend", "os:system"),
    "profile empty": put("profile", {}),
    "profile unknown key": put("profile/evil", 1),
    "profile no threads": put("profile/hardware", {"arch": "native", "threads": -5}),
    "port unknown": put("artefact/inputs/0/source_name", "nope"),
    "output unknown": put("artefact/outputs/0/source_name", "nope"),
    "no inputs": put("artefact/inputs", []),
    "no outputs": put("artefact/outputs", []),
    "shape negative": put("artefact/inputs/0/shape", [1, -16]),
    "shape huge": put("artefact/inputs/0/shape", [10**30, 16]),
    "shape of another model": put("artefact/inputs/0/shape", [1, 99]),
    "dtype unknown": put("artefact/inputs/0/dtype", "object"),
    "scale zero": put("artefact/inputs/0/scale", 0.0),
    "order of axes": put("artefact/inputs/0/to_layout", [5, 7]),
    "file outside": lambda m: m["files"].update({"../../etc/passwd": "0" * 64}),
    "file absolute": lambda m: m["files"].update({"/etc/passwd": "0" * 64}),
    "file twice by case": lambda m: m["files"].update({"DEPLOY.LOCK": "0" * 64}),
    "file by another way": lambda m: m["files"].update({"artefact/./model.onnx": "0" * 64}),
    "file with escape codes": lambda m: m["files"].update({"\x1b[31mevil\n": "0" * 64}),
    "file without a hash": lambda m: m["files"].update({"deploy.lock": "0"}),
    "files none": put("files", {}),
    "executable unknown": put("executables", ["evil"]),
    "format": put("format", 3),
    "unknown key": put("evil", 1),
    "huge number": put("model/parameters", 1e400),
}


@pytest.mark.parametrize("what", MANIFESTS)
def test_every_entry_of_a_manifest_is_checked(deploy, bundle, what):
    reseal(bundle, MANIFESTS[what])
    code, _, error = deploy("verify", bundle)
    assert code == 2 and "Traceback" not in error, error
    assert "\x1b" not in error


JSON = {
    "deep": b"[" * 200_000,
    "list": b"[]",
    "null": b"null",
    "text": b'"x"',
    "empty": b"",
    "binary": b"\xff\xfe\x00\x80",
    "huge integer": b"9" * 10_000,
    "not a number": b"NaN",
}


@pytest.mark.parametrize("content", JSON)
@pytest.mark.parametrize("name", ["manifest.json", "measurements.json", "deploy.lock"])
def test_records_that_are_none(deploy, bundle, name, content):
    (bundle / name).write_bytes(JSON[content])
    assert deploy("verify", bundle)[0] == 2
    assert deploy("inspect", bundle)[0] in ((2,) if name != "deploy.lock" else (0,))


def test_a_key_given_twice_is_refused(deploy, bundle):
    """Another reader of the file might take the other one."""
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text('{"target": "other",' + text.lstrip()[1:])
    rechain(bundle)
    code, _, error = deploy("verify", bundle)
    assert code == 2 and "manifest.json was changed" in error


@pytest.mark.parametrize("path", [".", "./", "../host", "../host/"])
def test_any_way_to_name_a_bundle(deploy, bundle, monkeypatch, path):
    monkeypatch.chdir(bundle)
    assert deploy("verify", path)[0] == 0


@pytest.mark.parametrize("path", ["nothing", "host/manifest.json", "/dev/null", "", "a\0b", "x" * 5000])
def test_what_is_no_bundle(deploy, bundle, monkeypatch, path):
    monkeypatch.chdir(bundle.parent)
    code, _, error = deploy("verify", path)
    assert code == 2 and "Traceback" not in error


# Golden vectors


def npz(*members, method=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")  # a name given twice is meant
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def npy(shape, content=b"", descr="'<f4'"):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


class Touch:
    def __reduce__(self):
        return os.system, ("touch CANARY",)


def saved(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def single(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


ROWS = np.random.default_rng(1).normal(size=(8, 16)).astype(np.float32)
INPUTS = {
    "empty": b"",
    "no zip": b"PK\x03\x04junk",
    "an .npy": single(ROWS),
    "a pickle": pickle.dumps(Touch()),
    "objects": saved(x=np.array([Touch()], dtype=object)),
    "no arrays": saved(),
    "another name": saved(evil=ROWS),
    "twice": npz(("x.npy", npy((8, 16), ROWS.tobytes())), ("x.npy", npy((8, 16), ROWS.tobytes()))),
    "text": saved(x=np.array(["a"] * 8)),
    "a number": saved(x=np.float32(1)),
    "no vectors": saved(x=ROWS[:0]),
    "other counts": saved(x=ROWS[:5]),
    "another shape": saved(x=np.zeros((8, 99), np.float32)),
    "negative": npz(("x.npy", npy("(-1, 16)", ROWS.tobytes()))),
    "true for one": npz(("x.npy", npy("(True, 16)", ROWS[:1].tobytes()))),
    "huge": npz(("x.npy", npy("(9999999999999, 16)"))),
    "huge by overflow": npz(("x.npy", npy("(4611686018427387904, 16)"))),
    "a call": npz(("x.npy", npy("(8, 16)", ROWS.tobytes(), "__import__('os').system('touch CANARY')"))),
    "deep header": npz(("x.npy", b"\x93NUMPY\x01\x00" + (9001).to_bytes(2, "little") + b"(" * 9000 + b"\n")),
    "cut short": npz(("x.npy", npy("(8, 16)", ROWS.tobytes()[:-4]))),
    "version 9": npz(("x.npy", b"\x93NUMPY\x09\x00")),
    "a bomb": npz(("x.npy", npy("(6000000, 16)", bytes(384_000_000))), method=zipfile.ZIP_DEFLATED),
}


@pytest.mark.parametrize("what", INPUTS)
def test_damaged_golden_inputs_are_refused(deploy, bundle, monkeypatch, tmp_path, what):
    monkeypatch.chdir(tmp_path)
    (bundle / "golden/inputs.npz").write_bytes(INPUTS[what])
    code, _, error = deploy("verify", reseal(bundle))
    assert code == 2 and "golden vectors" in error, error
    assert not (tmp_path / "CANARY").exists()


def outputs_of(bundle):
    with np.load(bundle / "golden/outputs.npz") as archive:
        return archive["y"]


OUTPUTS = {
    "other values": (1, lambda y: {"y": y + 9}),
    "not a number": (1, lambda y: {"y": y * np.nan}),
    "one not a number": (1, lambda y: {"y": np.where(np.arange(y.size).reshape(y.shape) == 3, np.nan, y)}),
    "infinite": (1, lambda y: {"y": np.full_like(y, np.inf)}),
    "one infinite": (1, lambda y: {"y": np.where(np.arange(y.size).reshape(y.shape) == 3, -np.inf, y)}),
    "a huge spread": (1, lambda y: {"y": np.where(np.arange(y.size).reshape(y.shape) == 3, 1e9, y)}),
    "none": (2, lambda y: {}),
    "no values": (2, lambda y: {"y": y[:0]}),
    "fewer": (2, lambda y: {"y": y[:3]}),
    "more": (2, lambda y: {"y": np.concatenate([y] * 40)}),
    "text": (2, lambda y: {"y": np.array([["a"] * 3] * 8)}),
    "another output": (2, lambda y: {"z": y}),
}


@pytest.mark.parametrize("what", OUTPUTS)
def test_golden_outputs_that_are_wrong_never_pass(deploy, bundle, what):
    expected, change = OUTPUTS[what]
    (bundle / "golden/outputs.npz").write_bytes(saved(**change(outputs_of(bundle))))
    assert deploy("verify", reseal(bundle))[0] == expected


@pytest.mark.parametrize("factor", ["nan", "inf", "0"])
def test_an_artefact_that_gives_something_else_fails(deploy, bundle, factor):
    path = bundle / "artefact/model.onnx"
    model = onnx.load(path)
    name = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["before" if output == name else output for output in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.float32(factor), "factor"))
    model.graph.node.append(helper.make_node("Mul", ["before", "factor"], [name]))
    onnx.save(model, path)
    assert deploy("verify", reseal(bundle))[0] == 1


# Budgets and the journal


def measured(value, evidence="device"):
    """A change of the journal: what its last run says of the latency."""

    def change(journal):
        statistics = {"p50": value, "p99": value}
        figure = {"name": "latency_ms", "value": value, "evidence": evidence, "how": "", "low": None, "high": None}
        figures = [item for item in journal["runs"][-1]["figures"] if item["name"] != "latency_ms"]
        journal["runs"][-1]["figures"] = [*figures, {**figure, "statistics": statistics}]

    return change


@pytest.mark.parametrize(
    ("value", "evidence", "expected"), [(1.0, "device", 0), (1e6, "device", 1), (1.0, "simulator", 3)]
)
def test_a_required_proof_is_looked_for_in_what_was_measured(deploy, bundle, value, evidence, expected):
    def budget(manifest):
        manifest["profile"]["budget"] = {"latency_ms": {"max": 50.0, "statistic": "p50", "required": True}}

    reseal(bundle, budget)
    rechain(bundle, measured(value, evidence))
    code, out, error = deploy("verify", bundle, "--require", "latency=device")
    assert code == expected, out + error


def test_runs_are_appended_and_chained(deploy, bundle):
    for _ in range(2):
        code, _, error = deploy("verify", bundle, "--device", "local")
        assert code in (0, 1), error  # the speed of this machine is its own affair
    journal = json.loads((bundle / "measurements.json").read_text())
    assert [run["device"] for run in journal["runs"]] == ["this host", "local", "local"]
    assert deploy("verify", bundle)[0] == 0
    assert [path.name for path in bundle.parent.iterdir()] == ["host"]


def test_measuring_in_the_folder_itself(deploy, bundle, monkeypatch):
    monkeypatch.chdir(bundle)
    code, _, error = deploy("verify", ".", "--device", "local")
    assert code in (0, 1), error
    assert len(json.loads((bundle / "measurements.json").read_text())["runs"]) == 2


def test_links_planted_where_a_measurement_is_written_have_no_effect(deploy, bundle):
    mine = bundle.parent / "mine"
    mine.write_text("three years of work")
    for name in ("measurements.json", "report.md"):
        (bundle.parent / f".host-{name}").symlink_to(mine)
    assert deploy("verify", bundle, "--device", "local")[0] in (0, 1)
    assert mine.read_text() == "three years of work"


@pytest.fixture(scope="module")
def thrice(tiny_bundle, tmp_path_factory):
    """A bundle with three runs."""
    from edgedeploy.bundle.append import append_run
    from edgedeploy.bundle.read import read_bundle

    folder = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("thrice") / "host")
    for device in ("ssh:one", "ssh:two"):
        append_run(folder, read_bundle(folder)[1].runs[0].model_copy(update={"device": device}))
    return folder


JOURNALS = {
    "changed": lambda runs: [runs[0], {**runs[1], "device": "ssh:other"}, runs[2]],
    "last changed": lambda runs: [*runs[:2], {**runs[2], "exit_code": 0, "samples": 9}],
    "removed": lambda runs: [runs[0], runs[2]],
    "first removed": lambda runs: runs[1:],
    "cut off": lambda runs: runs[:2],
    "all removed": lambda runs: [],
    "other order": lambda runs: [runs[0], runs[2], runs[1]],
    "twice": lambda runs: [*runs, runs[2]],
}


@pytest.mark.parametrize("what", JOURNALS)
def test_a_journal_that_was_changed_is_refused(deploy, thrice, tmp_path, what):
    folder = shutil.copytree(thrice, tmp_path / "host")
    assert deploy("verify", folder)[0] == 0
    journal = json.loads((folder / "measurements.json").read_text())
    journal["runs"] = JOURNALS[what](journal["runs"])
    (folder / "measurements.json").write_text(json.dumps(journal, indent=2, sort_keys=True) + "\n")
    code, _, error = deploy("verify", folder)
    assert code == 2 and "measurements.json" in error, error


def test_a_report_that_says_something_else_is_refused_though_its_hash_is_right(deploy, bundle):
    from bundles import _sha256, plain_json

    report = (bundle / "report.md").read_bytes().replace(b"| pass |", b"| fail |").replace(b"host", b"phone")
    (bundle / "report.md").write_bytes(report)
    journal = json.loads((bundle / "measurements.json").read_text())
    journal["report_sha256"], journal["sha256"] = _sha256(report), ""
    journal["sha256"] = _sha256(plain_json(journal))
    (bundle / "measurements.json").write_bytes(plain_json(journal))
    code, _, error = deploy("verify", bundle)
    assert code == 2 and "report.md does not say" in error


def test_appending_that_is_interrupted_leaves_a_bundle(deploy, thrice, tmp_path):
    """Two files are replaced; between them the report is that of the run before, which is said."""
    folder = shutil.copytree(thrice, tmp_path / "host")
    journal = (folder / "measurements.json").read_bytes()
    report = (folder / "report.md").read_bytes()
    from edgedeploy.bundle.append import append_run
    from edgedeploy.bundle.read import read_bundle

    append_run(folder, read_bundle(folder)[1].runs[0])
    (folder / "report.md").write_bytes(report)
    code, out, _ = deploy("verify", folder)
    assert code == 0 and "report.md lacks the last run" in out
    (folder / "measurements.json").write_bytes(journal)
    assert deploy("verify", folder)[0] == 0


def test_what_several_append_at_once_is_all_there(thrice, tmp_path):
    import subprocess
    import sys

    folder = shutil.copytree(thrice, tmp_path / "host")
    code = """
import pathlib, sys
from edgedeploy.bundle.append import append_run
from edgedeploy.bundle.read import read_bundle
folder = pathlib.Path(sys.argv[1])
run = read_bundle(folder)[1].runs[0]
for _ in range(5):
    append_run(folder, run)
"""
    labs = [subprocess.Popen([sys.executable, "-P", "-c", code, str(folder)]) for _ in range(3)]
    assert [lab.wait() for lab in labs] == [0, 0, 0]
    assert len(json.loads((folder / "measurements.json").read_text())["runs"]) == 18


def test_byte_flips_are_all_found(deploy, bundle):
    """A few places of every file; benchmarks/bundle_byte_flips.py takes every byte."""
    from edgedeploy.bundle.read import check_bundle, read_bundle
    from edgedeploy.errors import InputError

    check_bundle(bundle, *read_bundle(bundle))
    for path in [path for path in bundle.rglob("*") if path.is_file()]:
        content = path.read_bytes()
        for position in sorted({0, 1, len(content) // 3, len(content) // 2, len(content) - 2, len(content) - 1}):
            changed = bytearray(content)
            changed[position] ^= 1 << position % 8
            path.write_bytes(changed)
            with pytest.raises(InputError):
                check_bundle(bundle, *read_bundle(bundle))
        path.write_bytes(content)
    check_bundle(bundle, *read_bundle(bundle))
