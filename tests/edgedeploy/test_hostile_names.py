"""Nothing that a model, a file or an argument calls itself reaches a terminal or report.md raw."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import onnx
import pytest
from markdown_it import MarkdownIt
from onnx import TensorProto, helper, numpy_helper

EVIL = "\x1b]0;PWNED\x07\u202e\u2066\x9b2J\rerror: FORGED\nerror: FORGED\n[/red][link=http://e]|<img src=x>`${x}$![a](http://e)\x7f"


def named(text: str) -> str:
    return f"{text}{EVIL}"


@pytest.fixture(scope="module")
def evil_model(tmp_path_factory) -> Path:
    """A tiny trained-shaped net all of whose names are hostile, its data beside it."""
    folder = tmp_path_factory.mktemp("evil")
    generator = np.random.default_rng(0)
    weights = {named("w"): (8, 3, 3, 3), named("v"): (4, 8)}
    nodes = [
        helper.make_node("Conv", [named("x"), named("w")], [named("c")], named("conv"), pads=[1, 1, 1, 1]),
        helper.make_node("Relu", [named("c")], [named("r")], named("relu")),
        helper.make_node("GlobalAveragePool", [named("r")], [named("p")], named("pool")),
        helper.make_node("Flatten", [named("p")], [named("f")], named("flat")),
        helper.make_node("Gemm", [named("f"), named("v")], [named("y")], named("gemm"), transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        named("graph"),
        [helper.make_tensor_value_info(named("x"), TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info(named("y"), TensorProto.FLOAT, [1, 4])],
        [
            numpy_helper.from_array(generator.normal(size=shape).astype(np.float32), name)
            for name, shape in weights.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    samples = generator.normal(size=(24, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "model.calib.npz", **{named("x"): samples})
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def evil_bundle(evil_model, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out")
    run("-t", "host", "--allow-unverified", "min_cosine", "-o", out, evil_model)
    return next(path for path in out.iterdir() if (path / "manifest.json").is_file())


def command(*arguments) -> list[str]:
    return [sys.executable, "-P", "-m", "edgedeploy", *map(str, arguments)]


def run(*arguments) -> str:
    """What the command writes into pipes."""
    done = subprocess.run(command(*arguments), capture_output=True, stdin=subprocess.DEVNULL, timeout=300)
    assert done.returncode != 70, done.stderr.decode()
    return done.stdout.decode() + "\n" + done.stderr.decode()


def on_a_terminal(*arguments) -> str:
    """What the command writes to a terminal."""
    mine, its = pty.openpty()
    child = subprocess.Popen(
        command(*arguments), stdin=its, stdout=its, stderr=its, env={**os.environ, "TERM": "xterm"}
    )
    os.close(its)
    content = b""
    while True:
        try:
            piece = os.read(mine, 65536)
        except OSError:
            break
        if not piece:
            break
        content += piece
    os.close(mine)
    assert child.wait(timeout=300) != 70
    return content.decode(errors="surrogateescape")


def assert_harmless(text: str, *, terminal: bool = False) -> None:
    assert "PWNED" not in text or "\x1b]0;" not in text
    for bad in ("\x1b]", "\u202e", "\u2066", "\x9b", "\x07", "\x7f"):
        assert bad not in text, f"{bad!r} in {text[max(0, text.index(bad) - 200) :][:400]!r}"
    if not terminal:
        strange = {item for item in text if unicodedata.category(item) in ("Cc", "Cf", "Cs") and item != "\n"}
        assert not strange, f"{strange} in {text!r}"
    assert not [line for line in text.splitlines() if line.lstrip("\r").startswith("error: FORGED")]


def lines_of(evil_model: Path, evil_bundle: Path, tmp_path: Path) -> dict[str, list]:
    """One command line or more for every command, good ones and mistakes."""
    host = ["-t", "host", "-o", tmp_path / "out"]
    (tmp_path / "deploy.toml").write_text(json.dumps({"a": 1}) and f"[{json.dumps(named('table'))}]\nkey = 1\n")
    (tmp_path / "mine.toml").write_text(
        'extends = "host"\n[device]\nname = "mine"\n' + f"description = {json.dumps(EVIL)}\nsoc = {json.dumps(EVIL)}\n"
        f"[sources]\nbudget = {json.dumps(EVIL)}\n"
    )
    np.savez(tmp_path / "other.npz", **{EVIL: np.zeros((4, 3, 8, 8), np.float32)})
    from safetensors.numpy import save_file

    save_file({named("key"): np.zeros((2, 2), np.float32)}, tmp_path / "weights.safetensors")
    strange = tmp_path / f"{EVIL.replace('/', '')}.onnx"
    strange.write_bytes(b"nothing")
    return {
        "deploy": [*host, evil_model],
        "deploy one candidate": [*host, "--candidate", "static-qdq", "-O", "equalize=true", evil_model],
        "deploy, microcontroller": ["-t", "stm32l4r5", "-o", tmp_path / "out", evil_model],
        "deploy, phone": ["-t", "iphone12", "-o", tmp_path / "out", evil_model],
        "deploy, unknown target": ["-t", EVIL, evil_model],
        "deploy, unknown option": [*host, "-O", f"{EVIL}=1", evil_model],
        "deploy, unknown candidate": [*host, "--candidate", EVIL, evil_model],
        "deploy, bad flag": ["--" + EVIL, evil_model],
        "deploy, bad device": [*host, "--device", EVIL, evil_model],
        "deploy, bad budget": [*host, "--budget", EVIL, evil_model],
        "deploy, bad input": [*host, "--input", EVIL, evil_model],
        "deploy, bad config": [*host, "--config", tmp_path / "deploy.toml", evil_model],
        "deploy, other data": [*host, "--calibration", tmp_path / "other.npz", evil_model],
        "deploy, missing data": [*host, "--calibration", EVIL, evil_model],
        "deploy, strange file": [*host, strange],
        "deploy, weights": [*host, "--model", "os:getcwd", tmp_path / "weights.safetensors"],
        "verify": ["verify", evil_bundle],
        "verify nothing": ["verify", EVIL],
        "estimate": ["estimate", "-t", "iphone12,snapdragon888", evil_model],
        "estimate, drawn": ["estimate", "-t", "iphone12", "--plot", tmp_path / "time.svg", evil_model],
        "estimate, bad precision": ["estimate", "-t", "iphone12", "--precision", EVIL, evil_model],
        "calibrate": ["calibrate", "--out", tmp_path / "table.npz", evil_model],
        "table": ["table", tmp_path / "table.npz"],
        "layers": ["layers", "--scheme", "tflite", "--samples", "2", "--plot", tmp_path / "layers.svg", evil_model],
        "layers, bad scheme": ["layers", "--scheme", EVIL, evil_model],
        "inspect": ["inspect", "--layers", evil_model],
        "scan": ["scan", evil_model],
        "scan, weights": ["scan", tmp_path / "weights.safetensors"],
        "scan, strange file": ["scan", strange],
        "scan, JSON": ["scan", "--json", evil_model],
        "inspect, bundle": ["inspect", evil_bundle],
        "inspect, strange file": ["inspect", strange],
        "targets": ["targets", tmp_path / "mine.toml"],
        "targets, unknown": ["targets", EVIL],
    }


def test_through_every_command_in_a_pipe(deploy, evil_model, evil_bundle, tmp_path):
    from edgedeploy.cli import COMMANDS

    lines = lines_of(evil_model, evil_bundle, tmp_path)
    assert {"deploy", *COMMANDS} <= {str(line[0]) if line[0] in COMMANDS else "deploy" for line in lines.values()}
    for name, line in lines.items():
        code, out, error = deploy(*line)
        shown = f"{out}\n{error}"
        assert shown.strip() and code != 70, f"{name}: {shown}"
        try:
            assert_harmless(shown)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


@pytest.mark.parametrize("name", ["deploy", "layers", "estimate", "deploy, other data", "inspect", "targets"])
def test_on_a_terminal(evil_model, evil_bundle, tmp_path, name):
    assert_harmless(on_a_terminal(*lines_of(evil_model, evil_bundle, tmp_path)[name]), terminal=True)


def test_json_is_json_and_ascii(evil_model, tmp_path):
    host = ["-t", "host", "-o", tmp_path / "out", "--json", "-q"]
    for line in (
        [*host, "--candidate", "float32", evil_model],
        [*host, "--candidate", EVIL, evil_model],
        ["-t", EVIL, "--json", evil_model],
        ["--json", "--" + EVIL, evil_model],
        ["estimate", "-t", "iphone12", "--json", evil_model],
    ):
        done = subprocess.run(command(*line), capture_output=True, stdin=subprocess.DEVNULL)
        json.loads(done.stdout)
        assert done.stdout.isascii() and b"\x1b" not in done.stdout


def test_the_report_shows_names_and_obeys_none(evil_bundle):
    text = (evil_bundle / "report.md").read_text()
    assert_harmless(text)
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert "<img src=x" not in html and "href" not in html
    rows = [line for line in html.splitlines() if line.startswith("<tr")]
    assert rows and "FORGED" in html
    picture = evil_bundle / "layers.svg"
    if picture.is_file():
        from xml.etree import ElementTree

        ElementTree.fromstring(picture.read_text())
