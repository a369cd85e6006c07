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
