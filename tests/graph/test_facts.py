"""Multiply-accumulates, parameters and shapes, against what the layers' definitions say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgedeploy.graph.capture import capture
from edgedeploy.graph.macs import macs
from edgedeploy.model.load import load_model
from edgedeploy.model.options import LoadOptions, parse_input


class BatchMatmul(nn.Module):
    def forward(self, a, b):
        return a @ b


LAYERS = {
    "convolution": (nn.Conv2d(3, 8, 3, padding=1), "x:1x3x10x10", 10 * 10 * 8 * 3 * 9, 8 * 27 + 8),
    "strided": (nn.Conv2d(3, 8, 3, stride=2, padding=1), "x:1x3x10x10", 5 * 5 * 8 * 27, 8 * 27 + 8),
    "grouped": (nn.Conv2d(8, 8, 3, groups=4, bias=False), "x:1x8x10x10", 8 * 8 * 8 * 2 * 9, 8 * 2 * 9),
    "depthwise": (nn.Conv2d(8, 8, 3, groups=8, bias=False), "x:1x8x10x10", 8 * 8 * 8 * 9, 72),
    "transposed": (nn.ConvTranspose2d(4, 6, 2, 2, bias=False), "x:1x4x5x5", 25 * 4 * 6 * 4, 96),
    "one-dimensional": (nn.Conv1d(3, 5, 4), "x:1x3x20", 17 * 5 * 12, 5 * 12 + 5),
    "linear": (nn.Linear(20, 30), "x:1x20", 600, 630),
    "linear over a sequence": (nn.Linear(20, 30), "x:1x7x20", 7 * 600, 630),
    "batch matmul": (BatchMatmul(), "a:1x4x5x6 b:1x4x6x7", 4 * 5 * 6 * 7, 0),
    "lstm": (nn.LSTM(8, 16, batch_first=True, bidirectional=True), "x:1x10x8", 10 * 2 * 64 * 24, 2 * (64 * 24 + 128)),
    "gru": (nn.GRU(8, 16, batch_first=True), "x:1x10x8", 10 * 48 * 24, 48 * 24 + 96),
    "activation": (nn.GELU(), "x:1x100", 0, 0),
    "pooling": (nn.MaxPool2d(2), "x:1x3x8x8", 0, 0),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["batch 1", "any batch"])
@pytest.mark.parametrize("name", LAYERS)
def test_layer(tmp_path, name, dynamic):
    module, inputs, expected_macs, expected_parameters = LAYERS[name]
    torch.save(module.eval(), tmp_path / "m.pt")
    specs = tuple(map(parse_input, inputs.split()))
    graph = capture(load_model(tmp_path / "m.pt", LoadOptions(inputs=specs, unsafe_load=True)), dynamic_batch=dynamic)
    assert graph.macs == expected_macs
    heavy = [op for op in graph.facts if op.macs]
    if heavy:
        counted = [
            op for op in graph.facts if op.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "LSTM", "GRU")
        ]
        assert sum(op.parameters for op in counted) == expected_parameters
        assert heavy[0].inputs
        assert heavy[0].outputs
        assert heavy[0].activation_bytes == 4 * sum(spec.elements for spec in (*heavy[0].inputs, *heavy[0].outputs))


def test_attributes_are_numbers(tmp_path):
    torch.save(nn.Conv2d(4, 8, 3, stride=2, groups=2, dilation=2).eval(), tmp_path / "m.pt")
    options = LoadOptions(inputs=(parse_input("x:1x4x12x12"),), unsafe_load=True)
    (conv,) = capture(load_model(tmp_path / "m.pt", options)).facts
    assert conv.attributes["group"] == 2
    assert conv.attributes["strides"] == (2, 2)
    assert conv.attributes["dilations"] == (2, 2)
    assert [weight.shape for weight in conv.weights] == [(8, 2, 3, 3), (8,)]


def test_einsum_and_what_is_not_known():
    assert macs("Einsum", [(2, 3, 4), (2, 4, 5)], [(2, 3, 5)], {"equation": "bij, bjk -> bik"}) == 120
    assert macs("Einsum", [(4, 4)], [(4,)], {"equation": "ii->i"}) == 0
    assert macs("Gemm", [(7, 3), (7, 5)], [(3, 5)], {"transA": 1}) == 105
    assert macs("Conv", [None, (8, 3, 3, 3)], [None], {}) == 0
    assert macs("Transpose", [(5, 6)], [(6, 5)], {}) == 0
