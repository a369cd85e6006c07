"""Eight bundles of small nets, of every backend: what the other bundle_*.py scripts damage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TARGETS = {
    "host": ("--candidate", "float32"),
    "x86-avx2": ("--candidate", "static-qdq"),
    "raspberrypi5": ("--candidate", "static-qdq"),
    "jetson-orin-nano": (),
    "iphone14pro": (),
    "snapdragon888": (),
    "stm32l4r5": (),
    "nrf52840": (),
}


def write_model(folder: Path) -> Path:
    """A convolution and a dense layer, with calibration and evaluation data beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(size=(4, 1, 3, 3)), "b1": rng.normal(size=4),
        "w2": rng.normal(size=(64, 3)), "b2": rng.normal(size=3),
    }  # fmt: skip
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w1", "b1"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("Flatten", ["r"], ["f"]),
            helper.make_node("Gemm", ["f", "w2", "b2"], ["y"]),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    for name, count in (("calib", 64), ("eval", 32)):
        np.savez(folder / f"model.{name}.npz", x=rng.normal(size=(count, 1, 8, 8)).astype(np.float32))
    return folder / "model.onnx"


def write_torch_model(folder: Path) -> Path:
    """The same net, with weights of its own, as .pt2: Core ML is converted from torch."""
    import torch

    torch.manual_seed(0)
    layers = (torch.nn.Conv2d(1, 4, 3, 2, 1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 3))
    net = torch.nn.Sequential(*layers).eval()
    torch.export.save(torch.export.export(net, (torch.randn(1, 1, 8, 8),)), folder / "torch.pt2")
    rng = np.random.default_rng(0)
    for name, count in (("calib", 64), ("eval", 32)):
        np.savez(folder / f"torch.{name}.npz", input=rng.normal(size=(count, 1, 8, 8)).astype(np.float32))
    return folder / "torch.pt2"


def write_bundles(folder: Path) -> list[Path]:
    """Deploy the net to each target; returns the bundles, whatever their verdict."""
    plain = write_model(folder / "model")
    models = {"iphone14pro": write_torch_model(folder / "model")}
    for target, more in TARGETS.items():
        command = [sys.executable, "-P", "-m", "edgedeploy", "-q", "-t", target, *more]
        done = subprocess.run(
            [*command, "-o", str(folder / "out"), str(models.get(target, plain))],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        print(f"{target}: exit code {done.returncode} {done.stderr.strip()[-300:]}", flush=True)
    return sorted(path for path in (folder / "out").iterdir() if (path / "manifest.json").is_file())
