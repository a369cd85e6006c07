"""Activations written out as arithmetic become one op, with the same values; look-alikes stay as they are."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from edgedeploy.graph.capture import capture
from edgedeploy.graph.graph import graph_from_onnx
from edgedeploy.model.load import load_model

X = np.concatenate([np.linspace(-30, 30, 61), [0.0, 1e-3, -1e-3]]).astype(np.float32).reshape(1, -1)


def parsed(body: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]>
    net (float[1, {X.size}] x) => (float[1, {X.size}] y) {{ {body} }}""")


def run(model: onnx.ModelProto) -> np.ndarray:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": X})[0]


@pytest.mark.parametrize(
    ("module", "ops"),
    [
        (nn.Softplus(), ["Softplus"]),
        (nn.Softsign(), ["Softsign"]),
        (nn.LogSigmoid(), ["Neg", "Softplus", "Neg"]),
    ],
    ids=["softplus", "softsign", "log_sigmoid"],
)
def test_torch_activations_are_one_op(tmp_path, module, ops):
    torch.export.save(torch.export.export(module, (torch.from_numpy(X),)), tmp_path / "net.pt2")
    graph = capture(load_model(tmp_path / "net.pt2"))
    assert [node.op_type for node in graph.model.graph.node] == ops
    session = onnxruntime.InferenceSession(graph.model.SerializeToString())
    got = session.run(None, {graph.inputs[0].name: X})[0]
    assert np.allclose(got, module(torch.from_numpy(X)).numpy(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "body",
    [
        "t = Constant<value_float=5.0>() g = Greater(x, t) s = Softplus(x) y = Where(g, x, s)",
        "t = Constant<value_float=20.0>() g = Greater(x, t) n = Neg(x) s = Softplus(n) y = Where(g, x, s)",
        "o = Constant<value_float=2.0>() a = Abs(x) b = Add(a, o) y = Div(x, b)",
        "o = Constant<value_float=1.0>() n = Exp(x) a = Abs(n) b = Add(a, o) y = Div(x, b)",
        "e = Exp(x) y = Log(e)",
    ],
    ids=["early_switch", "other_operand", "other_number", "other_numerator", "log_of_exp"],
)
def test_look_alikes_are_left_alone(body):
    model = parsed(body)
    graph = graph_from_onnx(model)
    left = [node.op_type for node in graph.model.graph.node]
    assert left == [node.op_type for node in model.graph.node if node.op_type != "Constant"]
    assert np.array_equal(run(graph.model), run(model))
