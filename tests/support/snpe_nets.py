"""Small graphs for the Snapdragon tests: built as ONNX, quantized by ours, compiled by Qualcomm's tools once."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.session import Calibration
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.exporters.snpe.compile import Compiled, compile_graph
from edgedeploy.exporters.snpe.precision import a8w8, apply
from edgedeploy.exporters.snpe.prepare import prepare
from edgedeploy.exporters.snpe.qnn.install import require_qnn
from edgedeploy.exporters.snpe.qnn.options import Hexagon
from edgedeploy.graph.graph import Graph
from edgedeploy.interfaces import ExportContext
from edgedeploy.progress import NoProgress

V68 = Hexagon(68)
SM8350 = Hexagon(68, 30)


def graph_of(nodes, inputs, outputs, constants, dtype=TensorProto.FLOAT) -> Graph:
    """A shape-inferred graph; inputs and outputs map names to shapes (outputs to None)."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    for index, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return Graph(onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True))


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    """Normally distributed float32 weights."""
    fan_in = int(np.prod(shape[1:])) or 1
    return (np.random.default_rng(seed).standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


def images(count: int, *shape: int, seed: int = 1) -> np.ndarray:
    """Random float32 inputs (count, *shape)."""
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


@functools.cache
def small_cnn() -> Graph:
    """Conv, Clip, depthwise conv, residual add, mean and a linear layer; input image (1, 3, 16, 16)."""
    nodes = [
        helper.make_node("Conv", ["image", "w0", "b0"], ["c0"], kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Clip", ["c0", "zero", "six"], ["a0"]),
        helper.make_node("Conv", ["a0", "w1", "b1"], ["c1"], kernel_shape=[3, 3], pads=[1] * 4, group=8),
        helper.make_node("Relu", ["c1"], ["a1"]),
        helper.make_node("Add", ["a0", "a1"], ["sum"]),
        helper.make_node("ReduceMean", ["sum", "axes"], ["pooled"], keepdims=0),
        helper.make_node("Gemm", ["pooled", "w2", "b2"], ["scores"], transB=1),
    ]
    uneven = np.geomspace(0.1, 1, 8, dtype=np.float32).reshape(8, 1, 1, 1)  # channels that cannot share one scale
    constants = {
        "w0": weights(8, 3, 3, 3) * uneven, "b0": weights(8, seed=2), "w1": weights(8, 1, 3, 3, seed=3) * uneven,
        "b1": weights(8, seed=4), "w2": weights(10, 8, seed=5), "b2": weights(10, seed=6),
        "zero": np.float32(0), "six": np.float32(6), "axes": np.array([2, 3]),
    }  # fmt: skip
    return graph_of(nodes, {"image": [1, 3, 16, 16]}, ["scores"], constants)


@functools.cache
def compiled_cnn() -> tuple[Compiled, onnx.ModelProto]:
    """`small_cnn` as A8W8, compiled for the Snapdragon 888, with the Q/DQ model it was made from."""
    folder = Path(tempfile.mkdtemp(prefix="edgedeploy-snpe-"))
    model = quantized(small_cnn(), {"image": images(8, 3, 16, 16)})
    onnx.save(model, folder / "model_qdq.onnx")
    return compile_graph(require_qnn(), folder / "model_qdq.onnx", V68, SM8350, folder / "work"), model


def quantized(graph: Graph, data: dict[str, np.ndarray], recipe=a8w8) -> onnx.ModelProto:
    """The Q/DQ model of a graph, rewritten for Hexagon."""
    prepared = prepare(graph, Calibration(graph, ArrayDataset(data)), NoProgress())
    return apply(recipe(prepared.graph), prepared.graph, prepared.table)


def context(
    graph: Graph, data: dict[str, np.ndarray], work_dir: Path, target="snapdragon888", **options
) -> ExportContext:
    """What the pipeline would give the exporter."""
    return ExportContext(
        model=SimpleNamespace(name="net"),
        graph=graph,
        profile=load_profile(target),
        calibration=Calibration(graph, ArrayDataset(data)),
        work_dir=work_dir,
        options=options,
    )


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    """Cosine similarity of two flattened arrays."""
    a, b = (array.ravel().astype(np.float64) for array in (left, right))
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
