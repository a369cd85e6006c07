"""The canonical graph: same numbers as torch, same bytes each time, and in the form that backends rely on."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import zoo
from torch import nn
from torch.nn import functional

from edgedeploy.errors import ToolFailedError
from edgedeploy.graph.capture import capture
from edgedeploy.graph.graph import OPSET, Graph
from edgedeploy.model.load import load_model
from edgedeploy.model.options import LoadOptions, parse_input


class Attention(nn.Module):
    def __init__(self, masked: bool = False, causal: bool = False) -> None:
        super().__init__()
        self.qkv, self.causal = nn.Linear(32, 96), causal
        if masked:
            self.forward = self.with_mask

    def attend(self, x, mask=None):
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, 4, 8).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal)
        return y.transpose(1, 2).reshape(batch, length, width)

    def forward(self, x):
        return self.attend(x)


class MaskedAttention(Attention):
    def forward(self, x, mask):
        return self.attend(x, mask[:, None, None, :].bool())


class Recurrent(nn.Module):
    def __init__(self, kind) -> None:
        super().__init__()
        self.rnn, self.head = kind(8, 16, batch_first=True, bidirectional=True), nn.Linear(32, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Upsampling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, groups=1),
            nn.GroupNorm(2, 8),
            nn.Hardswish(),
            nn.PixelShuffle(2),
            nn.Upsample(scale_factor=2),
        )

    def forward(self, x):
        y = self.layers(x)
        return {"mean": y.mean((2, 3)), "map": y}


MODELS = {
    "attention": (Attention, "x:1x16x32"),
    "causal": (lambda: Attention(causal=True), "x:1x16x32"),
    "masked": (MaskedAttention, "x:1x16x32 mask:1x16:int64"),
    "encoder": (
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 1, enable_nested_tensor=False
        ),
        "src:1x16x32",
    ),
    "lstm": (lambda: Recurrent(nn.LSTM), "x:1x10x8"),
    "gru": (lambda: Recurrent(nn.GRU), "x:1x10x8"),
    "upsampling": (Upsampling, "x:1x3x10x10"),
}


def load(tmp_path, module: nn.Module, inputs: str, **options):
    path = tmp_path / "module.pt"
    torch.save(module.eval(), path)
    specs = tuple(map(parse_input, inputs.split()))
    return load_model(path, LoadOptions(inputs=specs, unsafe_load=True, **options))


def run(graph: Graph, feeds):
    session = onnxruntime.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [spec.name for spec in graph.outputs]
    return dict(zip(names, session.run(names, feeds), strict=True))


def ops(graph: Graph) -> set[str]:
    return {node.op_type for node in graph.model.graph.node}


def canonical_form(graph: Graph) -> None:
    """What every backend may take for granted."""
    proto = graph.model
    onnx.checker.check_model(proto, full_check=True)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", OPSET)]
    names = [node.name for node in proto.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    typed = {value.name for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)
             if value.type.tensor_type.HasField("shape") and value.type.tensor_type.elem_type}  # fmt: skip
    produced = {name for node in proto.graph.node for name in node.output if name}
    assert produced <= typed, f"no shape for {produced - typed}"
    used = {name for node in proto.graph.node for name in node.input} | {value.name for value in proto.graph.output}
    assert {tensor.name for tensor in proto.graph.initializer} <= used
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in proto.graph.initializer)
    assert not any(node.doc_string or len(node.metadata_props) for node in proto.graph.node)
    assert not ops(graph) & {"BatchNormalization", "Constant", "Identity", "Dropout"}


@pytest.mark.parametrize("dynamic", [False, True], ids=["batch 1", "any batch"])
@pytest.mark.parametrize("name", MODELS)
def test_same_numbers_as_torch(tmp_path, name, dynamic):
    torch.manual_seed(0)
    make, inputs = MODELS[name]
    model = load(tmp_path, make(), inputs, dynamic_batch=dynamic)
    graph = capture(model)
    canonical_form(graph)
    assert graph.agreement.agrees
    assert not model.notes
    batch = 3 if dynamic else 1
    feeds = {spec.name: np.random.default_rng(2).standard_normal((batch, *spec.shape[1:])).astype(spec.dtype)
             for spec in graph.inputs}  # fmt: skip
    if "mask" in feeds:
        feeds["mask"] = (np.arange(16) < np.array([[5], [16], [1]][:batch])).astype(np.int64)
    expected = model.reference(feeds)
    for key, value in run(graph, feeds).items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-4, atol=2e-5)
    for spec, value in zip(graph.inputs, model.inputs, strict=True):
        assert spec.shape == (("batch", *value.shape[1:]) if dynamic else value.shape)
    shapes = {axis for value in graph.model.graph.value_info for axis in _names(value)}
    assert shapes <= ({"batch"} if dynamic else set()) | {axis for axis in shapes if "batch" in axis}


def _names(value):
    return [axis.dim_param for axis in value.type.tensor_type.shape.dim if axis.dim_param]


@pytest.mark.parametrize("name", ["attention", "masked", "causal"])
def test_attention_is_plain(tmp_path, name):
    make, inputs = MODELS[name]
    graph = capture(load(tmp_path, make(), inputs))
    assert not ops(graph) & {"IsNaN", "Shape", "Concat", "Expand"}
    constants = [onnx.numpy_helper.to_array(tensor) for tensor in graph.model.graph.initializer]
    assert all(np.isfinite(array).all() for array in constants if array.dtype == np.float32)
    assert sum(node.op_type == "Mul" for node in graph.model.graph.node) == 1


@pytest.mark.parametrize("name", ["attention", "masked", "lstm", "gru", "encoder"])
def test_an_open_batch_brings_no_shape_arithmetic(tmp_path, name):
    make, inputs = MODELS[name]
    graph = capture(load(tmp_path, make(), inputs), dynamic_batch=True)
    assert not ops(graph) & {"Shape", "Range", "ConstantOfShape"}


def test_rows_of_attention_without_a_visible_key_are_as_torch_has_them(tmp_path):
    """A sample of the user's with such rows gets the exact form; one without keeps the form that devices take."""
    torch.manual_seed(0)
    model = load(tmp_path, MaskedAttention(), "x:1x16x32 mask:1x16:int64", dynamic_batch=False)
    x = np.random.default_rng(0).standard_normal((1, 16, 32)).astype(np.float32)
    hidden = {"x": x, "mask": np.zeros((1, 16), np.int64)}
    exact = capture(model, [hidden])
    assert np.allclose(run(exact, hidden)["output"], model.reference(hidden)["output"], atol=1e-5)
    plain = capture(model, [{"x": x, "mask": np.ones((1, 16), np.int64)}])
    assert "ReduceMax" in ops(exact)
    assert "ReduceMax" not in ops(plain)


def test_two_captures_are_the_same_bytes(tmp_path):
    digits = zoo.digits_cnn()
    torch.save(digits.state_dict(), tmp_path / "m.pt")
    options = LoadOptions(factory="digits_cnn:DigitsCnn", inputs=(parse_input("image:1x1x8x8"),))
    graphs = [capture(load_model(tmp_path / "m.pt", options)) for _ in range(2)]
    assert graphs[0].model.SerializeToString() == graphs[1].model.SerializeToString()
    assert (
        graphs[0].sha256
        == graphs[1].sha256
        == hashlib.sha256(graphs[1].model.SerializeToString(deterministic=True)).hexdigest()
    )
    text = str(graphs[0].model)
    assert "digits_cnn.py" not in text, "no stack traces"


def test_nodes_and_weights_carry_their_modules_names(tmp_path):
    torch.save(zoo.minilm().state_dict(), tmp_path / "m.pt")
    inputs = zoo.minilm_inputs(2)
    specs = tuple(parse_input(f"{name}:1x128:int64") for name in inputs)
    model = load_model(tmp_path / "m.pt", LoadOptions(factory="minilm_encoder:build", inputs=specs))
    graph = capture(model, [{name: value[i : i + 1] for name, value in inputs.items()} for i in range(2)])
    canonical_form(graph)
    assert graph.agreement.cosine_min > 0.99999
    query = next(op for op in graph.facts if op.name.endswith("layer.0.attention.self.query/MatMul"))
    assert graph.modules[query.name].endswith("layer.0.attention.self.query")
    assert query.weights[0].name.endswith("attention.self.query.weight_transposed")
    assert query.macs == 128 * 384 * 384
    assert {"LayerNormalization", "Gelu", "Softmax"} <= ops(graph)


def test_efficientnet(tmp_path):
    net, (photos, _) = zoo.efficientnet_lite0(), zoo.photos()
    torch.save(net.state_dict(), tmp_path / "m.pt")
    specs = (parse_input("image:1x3x224x224"),)
    model = load_model(tmp_path / "m.pt", LoadOptions(factory="efficientnet_lite0:build", inputs=specs))
    graph = capture(model, [{"image": photo[None]} for photo in photos[:2]], dynamic_batch=True)
    canonical_form(graph)
    assert ops(graph) <= {"Conv", "Clip", "Add", "GlobalAveragePool", "ReduceMean", "Gemm", "Flatten", "Reshape"}
    assert len(graph.batch_norms) == sum(node.op_type == "Conv" for node in graph.model.graph.node) == 49
    assert 3.8e8 < graph.macs < 4.1e8  # 407 M with its input of 224 (Tan and Le; EfficientNet-Lite release notes)
    assert 4.5e6 < graph.parameters < 4.7e6


CALLS = itertools.count(1)


class Unsteady(nn.Module):
    """Export freezes what Python decided while it watched; each call decides something else."""

    def forward(self, x):
        return x * next(CALLS)


def test_a_graph_that_computes_something_else_is_refused(tmp_path):
    model = load(tmp_path, Unsteady(), "x:1x4")
    with pytest.raises(ToolFailedError) as caught:
        capture(model)
    assert "max abs error" in caught.value.found
    assert "forward()" in caught.value.remedy
