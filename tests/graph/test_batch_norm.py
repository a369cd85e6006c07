"""Batch norms disappear into the layer before them, and what they knew stays."""

from __future__ import annotations

import doctored
import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from edgedeploy.graph.capture import capture
from edgedeploy.model.load import load_model
from edgedeploy.model.options import LoadOptions, parse_input


def trained(module: nn.Module) -> nn.Module:
    """Give every norm statistics and an affine part of its own, as training would."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.uniform_(-1, 1)
            part.running_var.uniform_(0.3, 3)
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 2)
                nn.init.uniform_(part.bias, -1, 1)
    return module.eval()


CASES = {
    "convolution": (nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), "1x3x9x9", {"Conv"}),
    "without bias": (nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)), "1x3x9x9", {"Conv"}),
    "depthwise": (nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4)), "1x4x9x9", {"Conv"}),
    "one-dimensional": (nn.Sequential(nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6, affine=False)), "1x3x9", {"Conv"}),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(3, 8, 2, 2), nn.BatchNorm2d(8)), "1x3x5x5", {"ConvTranspose"}),
    "transposed, grouped": (
        nn.Sequential(nn.ConvTranspose2d(4, 6, 2, 2, groups=2), nn.BatchNorm2d(6)),
        "1x4x5x5",
        {"ConvTranspose"},
    ),
    "linear": (nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7)), "1x5", {"Gemm"}),
    "after an activation": (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8)),
        "1x3x9x9",
        {"Conv", "Relu", "Mul", "Add"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_folded(tmp_path, name):
    module, shape, expected_ops = CASES[name]
    torch.save(trained(module), tmp_path / "m.pt")
    model = load_model(tmp_path / "m.pt", LoadOptions(inputs=(parse_input(f"x:{shape}"),), unsafe_load=True))
    graph = capture(model)
    assert {node.op_type for node in graph.model.graph.node} == expected_ops
    assert graph.agreement.max_relative_error < 1e-5
    norm = module[-1]
    (tensor, statistics), *others = graph.batch_norms.items()
    assert not others
    assert tensor in {name for node in graph.model.graph.node for name in node.output}
    np.testing.assert_array_equal(statistics.mean, norm.running_mean)
    np.testing.assert_array_equal(statistics.variance, norm.running_var)
    channels = len(norm.running_mean)
    np.testing.assert_array_equal(statistics.gamma, norm.weight.detach() if norm.affine else np.ones(channels))
    np.testing.assert_array_equal(statistics.beta, norm.bias.detach() if norm.affine else np.zeros(channels))


def test_statistics_describe_the_tensor_they_are_named_after(tmp_path):
    """On inputs like those of training, the named tensor has mean beta and spread gamma."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=None)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.bias, -1, 1)
    images = torch.randn(256, 3, 9, 9) * 2 + 1
    module = nn.Sequential(conv, norm, nn.ReLU())
    module.train()(images)
    torch.save(module.eval(), tmp_path / "m.pt")
    options = LoadOptions(inputs=(parse_input("x:1x3x9x9"),), unsafe_load=True, dynamic_batch=True)
    graph = capture(load_model(tmp_path / "m.pt", options))
    (tensor, statistics), *_ = graph.batch_norms.items()
    proto = graph.model
    del proto.graph.output[:]
    proto.graph.output.extend(value for value in proto.graph.value_info if value.name == tensor)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (values,) = session.run([tensor], {"x": images.numpy()})
    np.testing.assert_allclose(values.mean((0, 2, 3)), statistics.beta, atol=1e-3)
    np.testing.assert_allclose(values.std((0, 2, 3)), statistics.gamma, rtol=1e-2)


def test_a_layer_that_others_read_before_the_norm_stays_as_it_is(tmp_path):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.one, self.two = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x):
            y = self.conv(x)
            return self.one(y), self.two(self.conv(y)), y

    program = torch.export.export(trained(Shared()), (torch.randn(1, 3, 4, 4),))
    torch.export.save(program, tmp_path / "m.pt2")
    graph = capture(load_model(tmp_path / "m.pt2"))
    assert [node.op_type for node in graph.model.graph.node].count("Conv") == 2
    assert len(graph.batch_norms) == 2
    assert graph.agreement.max_relative_error < 1e-5


def test_onnx_source_with_norms(tmp_path):
    net = doctored.small_net()
    torch.onnx.export(
        net, (torch.ones(1, 1, 8, 8),), tmp_path / "m.onnx", optimize=False, verbose=False, external_data=False
    )
    graph = capture(load_model(tmp_path / "m.onnx"))
    assert [node.op_type for node in graph.model.graph.node] == ["Conv", "Relu"]
    (statistics,) = graph.batch_norms.values()
    np.testing.assert_array_equal(statistics.mean, net[1].running_mean)
