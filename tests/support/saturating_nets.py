"""Nets whose operands lie at the ends of their ranges, so that whatever can saturate does, and their artefacts."""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from onnx import helper
from snpe_nets import graph_of

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.options import CalibrationOptions
from edgedeploy.calibration.session import Calibration
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.exporters.onnxruntime.exporter import OnnxRuntimeExporter
from edgedeploy.graph.graph import Graph
from edgedeploy.interfaces import Artefact, ExportContext

#: One profile for every way to multiply 8-bit integers.
PROFILES = ("x86-avx512vnni", "x86-avx2", "raspberrypi5")
#: The nets here that get a static form.
STATIC = ("convolutions", "elementwise", "wide", "linear")
#: Samples that calibrate, and those that are compared.
CALIBRATING, COMPARED = 24, 4


def extreme(*shape: int, seed: int) -> np.ndarray:
    """Weights of which most lie at the end of their channel's range, with both signs and a few in between."""
    random = np.random.default_rng(seed)
    values = np.where(random.random(shape) < 0.7, 1, random.uniform(-1, 1, shape))
    signs = np.where(random.random((shape[0], *(1 for _ in shape[1:]))) < 0.5, -1, 1)
    size = np.linspace(0.5, 1.5, shape[0]).reshape(signs.shape)  # channels that cannot share one scale
    return (values * signs * size / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def inputs(graph: Graph, count: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Samples that mostly lie at the end of their range."""
    random = np.random.default_rng(seed)
    return {
        spec.name: np.where(random.random(shape) < 0.7, 1, random.uniform(-0.2, 1, shape)).astype(np.float32)
        for spec in graph.inputs
        for shape in [(count, *spec.shape[1:])]
    }


@functools.cache
def convolutions() -> Graph:
    """Every kind of layer with an integer kernel, side by side: one output a kind.

    Inputs ``image`` (1, 8, 9, 9), ``signal`` (1, 8, 20) and ``row`` (1, 64).
    """
    conv = functools.partial(helper.make_node, "Conv")
    wide = {"kernel_shape": [3, 3], "pads": [1] * 4}
    nodes = [
        conv(["image", "w", "b"], ["plain"], **wide),
        conv(["image", "w"], ["strided"], kernel_shape=[3, 3], strides=[2, 2]),
        conv(["image", "w", "b"], ["dilated"], kernel_shape=[3, 3], dilations=[2, 2], pads=[2] * 4),
        conv(["image", "w_grouped", "b"], ["grouped"], group=4, **wide),
        conv(["image", "w_depthwise", "b_8"], ["depthwise"], group=8, **wide),
        conv(["image", "w_point", "b"], ["pointwise"], kernel_shape=[1, 1]),
        conv(["signal", "w_1d", "b"], ["one_axis"], kernel_shape=[5], pads=[2, 2]),
        helper.make_node("ConvTranspose", ["image", "w_up"], ["upwards"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Gemm", ["row", "w_linear", "b_24"], ["linear"], transB=1),
        helper.make_node("MatMul", ["row", "w_matrix"], ["matrix"]),
        # A chain: codes that one layer makes are the next one's operands.
        conv(["image", "w", "b"], ["c0"], **wide),
        helper.make_node("Relu", ["c0"], ["a0"]),
        conv(["a0", "w_second"], ["c1"], **wide),
        helper.make_node("Relu", ["c1"], ["a1"]),
        helper.make_node("GlobalAveragePool", ["a1"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w_scores", "b_5"], ["chain"], transB=1),
    ]
    constants = {
        "w": extreme(16, 8, 3, 3, seed=1), "b": extreme(16, seed=2), "b_8": extreme(8, seed=3),
        "w_grouped": extreme(16, 2, 3, 3, seed=4), "w_depthwise": extreme(8, 1, 3, 3, seed=5),
        "w_point": extreme(16, 8, 1, 1, seed=6), "w_1d": extreme(16, 8, 5, seed=7), "w_up": extreme(8, 6, 2, 2, seed=8),
        "w_linear": extreme(24, 64, seed=9), "b_24": extreme(24, seed=10),
        "w_matrix": np.ascontiguousarray(extreme(24, 64, seed=11).T), "w_second": extreme(12, 16, 3, 3, seed=12),
        "w_scores": extreme(5, 12, seed=13), "b_5": extreme(5, seed=14),
    }  # fmt: skip
    shapes = {"image": [1, 8, 9, 9], "signal": [1, 8, 20], "row": [1, 64]}
    return graph_of(nodes, shapes, [*PRODUCTS, "chain"], constants)


#: Outputs of `convolutions` that are one product each.
PRODUCTS = (
    "plain",
    "strided",
    "dilated",
    "grouped",
    "depthwise",
    "pointwise",
    "one_axis",
    "upwards",
    "linear",
    "matrix",
)


@functools.cache
def elementwise() -> Graph:
    """What stands between the products: sums, products, joins, pools and curves; input ``image`` (1, 8, 9, 9)."""
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "w"], ["a"], kernel_shape=[3, 3], pads=[1] * 4),
        node("Conv", ["image", "v"], ["b"], kernel_shape=[3, 3], pads=[1] * 4),
        node("Add", ["a", "b"], ["sum"]),
        node("Mul", ["a", "b"], ["times"]),
        node("Concat", ["a", "b"], ["joined"], axis=1),
        node("AveragePool", ["a"], ["average"], kernel_shape=[3, 3], strides=[2, 2]),
        node("MaxPool", ["a"], ["largest"], kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["a"], ["mean"]),
        node("Sigmoid", ["a"], ["curve"]),
        node("LeakyRelu", ["a"], ["leaky"], alpha=0.1),
        node("Clip", ["a", "zero", "half"], ["clipped"]),
    ]
    constants = {"w": extreme(8, 8, 3, 3, seed=1), "v": extreme(8, 8, 3, 3, seed=2)}
    constants |= {"zero": np.float32(0), "half": np.float32(0.5)}
    return graph_of(nodes, {"image": [1, 8, 9, 9]}, ELEMENTWISE, constants)


ELEMENTWISE = ("sum", "times", "joined", "average", "largest", "mean", "curve", "leaky", "clipped")


@functools.cache
def linear() -> Graph:
    """Two linear layers with a ReLU between, wide enough to be worth packing; input ``rows`` (1, 7, 64)."""
    nodes = [
        helper.make_node("MatMul", ["rows", "w"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "v"], ["scores"]),
    ]
    weights = (extreme(96, 64, seed=1), extreme(32, 96, seed=2))
    constants = {name: np.ascontiguousarray(value.T) for name, value in zip("wv", weights, strict=True)}
    return graph_of(nodes, {"rows": [1, 7, 64]}, ["scores"], constants)


@functools.cache
def wide() -> Graph:
    """A product whose sums, up to 150 million, have more than the 24 bits of a float32; input ``rows`` (1, 4608)."""
    nodes = [
        helper.make_node("Gemm", ["rows", "w"], ["hidden"], transB=1),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "v"], ["scores"], transB=1),
    ]
    constants = {"w": extreme(256, 4608, seed=1), "v": extreme(64, 256, seed=2)}
    return graph_of(nodes, {"rows": [1, 4608]}, ["scores"], constants)


def artefact(graph: Graph, profile: str, candidate: str, folder: Path) -> Artefact:
    """The candidate as the exporter makes it, its ranges read by min/max."""
    folder.mkdir(parents=True, exist_ok=True)
    context = ExportContext(
        model=SimpleNamespace(name="net"),
        graph=graph,
        profile=load_profile(profile),
        calibration=Calibration(
            graph, ArrayDataset(inputs(graph, CALIBRATING, seed=2)), CalibrationOptions(method="minmax")
        ),
        work_dir=folder,
        pinned=candidate,
    )
    return next(OnnxRuntimeExporter().candidates(context))
