"""A deployed digits CNN, built once by the real command, and a quick .onnx of it for everything else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import zoo

from edgedeploy.cli import main


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory) -> Path:
    """What the example writes: model.pt (.pt2), data and deploy.toml."""
    folder = tmp_path_factory.mktemp("digits")
    zoo.digits_example.write(folder)
    return folder


@pytest.fixture(scope="session")
def digits_onnx(digits_folder, tmp_path_factory) -> Path:
    """The same network as .onnx, with its data and deploy.toml beside it."""
    from edgedeploy.graph.capture import capture
    from edgedeploy.model.load import load_model

    folder = tmp_path_factory.mktemp("digits-onnx")
    graph = capture(load_model(digits_folder / "model.pt"))
    onnx.save(graph.model, folder / "model.onnx")
    for name in ("model.calib.npz", "model.eval.npz", "deploy.toml"):
        (folder / name).write_bytes((digits_folder / name).read_bytes())
    images, _, test_images, test_labels = zoo.digits_data()
    np.savez(folder / "model.calib.npz", image=images[:48])
    np.savez(folder / "model.eval.npz", image=test_images[:100], labels=test_labels[:100])
    return folder / "model.onnx"


@pytest.fixture
def model(digits_onnx, tmp_path) -> Path:
    """A private copy of the .onnx and what lies beside it, in an otherwise empty folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in digits_onnx.parent.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder / digits_onnx.name


@pytest.fixture
def deploy(capfd) -> Callable:
    """Run the command in this process; returns exit code, stdout and stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return int(ended.value.code), captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def digits_bundle(digits_folder, tmp_path_factory) -> Path:
    """The bundle of one real run of the command, as a user types it, in a process of its own."""
    out = tmp_path_factory.mktemp("out")
    command = [sys.executable, "-P", "-m", "edgedeploy", "-t", "host", "-o", str(out), str(digits_folder / "model.pt")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / "host"


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory) -> Path:
    """The bundle of a net of 200 weights, float on this host: as small as a real one gets."""
    from onnx import TensorProto, helper, numpy_helper

    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    weights = {"w1": rng.normal(size=(16, 8)), "b1": rng.normal(size=8), "w2": rng.normal(size=(8, 3))}
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "w2"], ["y"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "model.onnx"
    )
    for name, count in (("calib", 32), ("eval", 16)):
        np.savez(folder / f"model.{name}.npz", x=rng.normal(size=(count, 16)).astype(np.float32))
    command = [sys.executable, "-P", "-m", "edgedeploy", "-t", "host", "--candidate", "float32", "-o"]
    done = subprocess.run([*command, str(folder / "out"), str(folder / "model.onnx")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "out" / "host"
