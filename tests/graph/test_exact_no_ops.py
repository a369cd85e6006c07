"""Only what changes nothing, bit for bit, is removed at capture: an epsilon is what keeps a device from NaN."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgedeploy.graph.capture import capture
from edgedeploy.graph.graph import graph_from_onnx
from edgedeploy.model.load import load_model
from edgedeploy.model.options import LoadOptions

ZERO = np.zeros((1, 8), np.float32)
FAINT = np.full((1, 8), 1e-7, np.float32)


class Formula(nn.Module):
    def __init__(self, formula):
        super().__init__()
        self.fc = nn.Linear(8, 8, bias=False)
        self.formula = formula

    def forward(self, x):
        return self.formula(self.fc(x))


FORMULAS = {
    "log": lambda x: torch.log(x * x + 1e-9),
    "log, 1e-12": lambda x: torch.log(x.abs() + 1e-12),
    "quotient": lambda x: x / (x.norm(dim=1, keepdim=True) + 1e-9),
    "quotient, 1e-12": lambda x: (x + 1e-6) / (x.abs() + 1e-12),
    "clamp": lambda x: torch.log(x.clamp(min=1e-10)),
    "root": lambda x: 1 / torch.sqrt(x * x + 1e-10),
    "rsqrt": lambda x: torch.rsqrt(x * x + 1e-9),
    "power": lambda x: (x * x + 1e-9) ** -0.5,
    "maximum": lambda x: 1 / torch.maximum(x.abs(), torch.tensor(1e-9)),
    "norm": lambda x: torch.nn.functional.normalize(x, eps=1e-9),
    "difference": lambda x: torch.log(x.abs() - -1e-9),
}


@pytest.mark.parametrize("formula", FORMULAS)
def test_epsilons_of_torch_survive(tmp_path, formula):
    torch.manual_seed(0)
    net = Formula(FORMULAS[formula]).eval()
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(net, (torch.randn(1, 8),)), path)
    model = load_model(path, LoadOptions(dynamic_batch=False))
    graph = capture(model, [{"x": np.random.default_rng(0).normal(3, 1, (1, 8)).astype(np.float32)}])
    session = onnxruntime.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
    for x in (ZERO, FAINT):
        expected = net(torch.from_numpy(x)).detach().numpy()
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-4, atol=1e-5)


def _onnx(op: str, constant: np.ndarray, flipped: bool = False) -> onnx.ModelProto:
    operands = ["c", "x"] if flipped else ["x", "c"]
    nodes = [helper.make_node(op, operands, ["a"]), helper.make_node("Exp", ["a"], ["y"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [numpy_helper.from_array(constant, "c")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


ONE = np.float32(1)
NEXT = np.nextafter(ONE, np.float32(2))


@pytest.mark.parametrize(
    ("op", "constant"),
    [("Add", 1e-9), ("Add", 1e-30), ("Sub", 1e-12), ("Mul", NEXT), ("Mul", 1 + 1e-6), ("Div", NEXT), ("Pow", NEXT)],
)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_what_is_almost_neutral_stays_in_an_onnx_source(op, constant, shape):
    graph = graph_from_onnx(_onnx(op, np.full(shape, constant, np.float32)))
    assert [node.op_type for node in graph.model.graph.node] == [op, "Exp"]


@pytest.mark.parametrize(
    ("op", "constant", "flipped"),
    [("Add", 0, False), ("Add", 0, True), ("Sub", 0, False), ("Mul", 1, False), ("Mul", 1, True), ("Div", 1, False)],
)
@pytest.mark.parametrize("shape", [(), (1,), (8,)])
def test_what_is_neutral_goes(op, constant, flipped, shape):
    graph = graph_from_onnx(_onnx(op, np.full(shape, constant, np.float32), flipped))
    assert [node.op_type for node in graph.model.graph.node] == ["Exp"]


def test_a_neutral_constant_that_widens_the_shape_stays():
    model = _onnx("Add", np.zeros((4, 8), np.float32))
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 4
    graph = graph_from_onnx(model)
    assert [node.op_type for node in graph.model.graph.node] == ["Add", "Exp"]


def test_clips_whose_bounds_cross_are_not_merged():
    nodes = [
        helper.make_node("Clip", ["x", "zero", "one"], ["a"]),
        helper.make_node("Clip", ["a", "two", "three"], ["b"]),
        helper.make_node("Clip", ["b", "", "minus"], ["c"]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    numbers = {"zero": 0, "one": 1, "two": 2, "three": 3, "minus": -1}
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in "xy"]
    constants = [numpy_helper.from_array(np.float32(value), name) for name, value in numbers.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    canonical = graph_from_onnx(model).model.SerializeToString()
    session = onnxruntime.InferenceSession(canonical, providers=["CPUExecutionProvider"])
    assert (session.run(None, {"x": FAINT})[0] == 0).all()
