"""Kinds of models that once ended capture with a crash or a false sentence: right values, or a true sentence."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from edgedeploy.errors import InputError
from edgedeploy.graph.capture import capture
from edgedeploy.graph.graph import Graph, graph_from_onnx
from edgedeploy.model.load import load_model
from edgedeploy.model.loaded import LoadedModel
from edgedeploy.model.operators import is_allowed
from edgedeploy.model.options import LoadOptions, parse_input


class Of(nn.Module):
    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, torch.Tensor):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def save(tmp_path, module: nn.Module, *example: torch.Tensor):
    path = tmp_path / "net.pt2"
    with torch.no_grad():
        torch.export.save(torch.export.export(module.eval(), example, strict=False), path)
    return path


def run(graph: Graph, feeds):
    session = onnxruntime.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([spec.name for spec in graph.outputs], feeds)


def same_as_eager(tmp_path, module: nn.Module, *example: torch.Tensor, rtol=1e-4) -> tuple[LoadedModel, Graph]:
    model = load_model(save(tmp_path, module, *example))
    graph = capture(model)
    onnx.checker.check_model(graph.model, full_check=True)
    with torch.no_grad():
        expected = torch.utils._pytree.tree_leaves(module(*example))
    feeds = {
        spec.name: value.float().numpy() if value.is_floating_point() else value.numpy()
        for spec, value in zip(graph.inputs, example, strict=True)
    }
    for got, want in zip(run(graph, feeds), expected, strict=True):
        np.testing.assert_allclose(got, want.float().numpy(), rtol=rtol, atol=rtol)
    return model, graph


def linear(rows=6, columns=4):
    torch.manual_seed(0)
    return nn.Linear(rows, columns)


PORTS = {
    "an input is an output": lambda self, x: (self.h(x), x),
    "an input twice": lambda self, x: (x, self.h(x), x),
    "one tensor twice": lambda self, x: (torch.relu(self.h(x)),) * 2,
    "one tensor in a list of lists": lambda self, x: [[self.h(x)] * 2, x],
    "a constant": lambda self, x: (self.h(x), self.c),
    "a constant twice": lambda self, x: (self.c, self.h(x), self.c),
}


@pytest.mark.parametrize("kind", PORTS)
def test_outputs_that_are_no_tensor_of_their_own(tmp_path, kind):
    net = Of(PORTS[kind], h=linear(), c=torch.arange(3.0)[None])
    _, graph = same_as_eager(tmp_path, net, torch.randn(1, 6))
    names = [spec.name for spec in (*graph.inputs, *graph.outputs)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("overload", "taken"), [("to.dtype_layout", True), ("add.out", False), ("max.dim_out", False)])
def test_a_layout_is_no_tensor_to_write_into(overload, taken):
    """``aten.to.dtype_layout``, which transformers call, ends as the overloads that write into a given tensor do."""
    assert is_allowed(f"torch.ops.aten.{overload}") is taken


def _file(tmp_path, nodes, outputs, constants=(), inputs=(("x", [1, 4]),), opset=18, element=TensorProto.FLOAT):
    ports = [helper.make_tensor_value_info(name, element, shape) for name, shape in inputs]
    results = [helper.make_tensor_value_info(name, element, shape) for name, shape in outputs]
    weights = [numpy_helper.from_array(value, name) for name, value in dict(constants).items()]
    graph = helper.make_graph(nodes, "g", ports, results, weights)
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


X = np.array([[-1.0, 0.5, 2.0, -3.0]], np.float32)
HALF = numpy_helper.from_array(X.astype(np.float16))


def test_an_onnx_file_whose_input_is_an_output_and_one_output_given_twice(tmp_path):
    path = _file(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], [("x", [1, 4]), ("y", [1, 4]), ("y", [1, 4])])
    graph = graph_from_onnx(onnx.load(path))
    assert [spec.name for spec in graph.outputs] == ["x_out", "y", "y_out"]
    first, second, third = run(graph, {"x": X})
    assert np.array_equal(first, X)
    assert np.array_equal(second, np.maximum(X, 0))
    assert np.array_equal(third, second)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_taken_in_float32(tmp_path, dtype):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8)
    norm.running_var.uniform_(0.5, 2)
    net = Of(lambda self, x: self.b(functional.relu(self.n(self.a(x)))).to(dtype) * torch.ones((), dtype=dtype),
             a=nn.Conv2d(3, 8, 3), n=norm, b=nn.Conv2d(8, 4, 3)).eval().to(dtype)  # fmt: skip
    model, graph = same_as_eager(tmp_path, net, torch.randn(1, 3, 10, 10).to(dtype), rtol=4e-2)
    assert {spec.dtype for spec in (*graph.inputs, *graph.outputs, *model.inputs)} == {"float32"}
    assert all(tensor.data_type != TensorProto.FLOAT16 for tensor in graph.model.graph.initializer)
    assert "float32" in model.notes[0]


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_batch_norms_of_any_rank_without_shapes_in_the_file(tmp_path, rank):
    shape = [1, 3, 5, 5][:rank]
    rng = np.random.default_rng(0)
    constants = {name: rng.uniform(0.5, 1.5, 3).astype(np.float32) for name in ("s", "b", "m", "v")}
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("BatchNormalization", ["r", "s", "b", "m", "v"], ["n"]),
        helper.make_node("Abs", ["n"], ["y"]),
    ]
    path = _file(tmp_path, nodes, [("y", shape)], constants, inputs=[("x", shape)])
    graph = capture(load_model(path))
    x = rng.normal(size=shape).astype(np.float32)
    want = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    np.testing.assert_allclose(run(graph, {"x": x})[0], want, rtol=1e-5, atol=1e-6)


def test_no_tensor_bears_a_name_that_a_quantizer_gives_to_the_parts_of_another(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 4))
    _, graph = same_as_eager(tmp_path, net.eval(), torch.randn(1, 6))
    names = {tensor.name for tensor in graph.model.graph.initializer}
    assert not [name for name in names if name.endswith(("_scale", "_zero_point", "_quantized"))]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_program_of_batch_one_wanted_with_any_batch(tmp_path, kind):
    """In a process of its own: torch's kernels wrote past the state that was traced for one row, and it aborted."""
    torch.manual_seed(0)
    net = Of(lambda self, x: self.h(self.r(x)[0][:, -1]), r=kind(8, 16, batch_first=True), h=linear(16, 3))
    path = save(tmp_path, net, torch.randn(1, 10, 8))
    code = (
        "import sys\n"
        "from edgedeploy.graph.capture import capture\n"
        "from edgedeploy.model.load import load_model\n"
        "from edgedeploy.model.options import LoadOptions\n"
        "model = load_model(sys.argv[1], LoadOptions(dynamic_batch=True))\n"
        "graph = capture(model)\n"
        "assert graph.agreement.agrees\n"
        "print(graph.inputs[0].shape, *model.notes)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "(1, 10, 8)" in done.stdout
    assert "the batch is fixed to 1" in done.stdout


def test_a_recurrent_program_of_four_rows_keeps_them(tmp_path):
    torch.manual_seed(0)
    net = Of(lambda self, x: self.h(self.r(x)[0][:, -1]), r=nn.LSTM(8, 16, batch_first=True), h=linear(16, 3))
    model, graph = same_as_eager(tmp_path, net, torch.randn(4, 10, 8))
    assert graph.inputs[0].shape == (4, 10, 8)
    assert "batch is 4" in model.notes[0]


def _counting(self, x):
    self.n.add_(1.0)
    return self.h(x) + self.n * 0.01


def _shifting(self, x):
    self.n[:, :-1] = self.n[:, 1:].clone()
    self.n[:, -1:] = x[:, :1]
    return self.h(x) + self.n.sum()


@pytest.mark.parametrize(("forward", "buffer"), [(_counting, torch.zeros(())), (_shifting, torch.zeros(1, 5))])
@pytest.mark.parametrize("container", ["pt2", "module"])
def test_a_buffer_that_forward_changes_is_named(tmp_path, forward, buffer, container):
    net = Of(forward, h=linear(), n=buffer)
    with pytest.raises(InputError, match="changes its own buffers") as caught:
        if container == "pt2":
            load_model(save(tmp_path, net, torch.randn(1, 6)))
        else:
            path = tmp_path / "net.pt"
            torch.save(Pickled(forward is _shifting).eval(), path)
            capture(load_model(path, LoadOptions(inputs=(parse_input("x:1x6"),), unsafe_load=True)))
    assert " n" in caught.value.found


class Pickled(nn.Module):
    def __init__(self, shifting):
        super().__init__()
        self.h = linear()
        self.register_buffer("n", torch.zeros(1, 5) if shifting else torch.zeros(()))
        self.shifting = shifting

    def forward(self, x):
        return (_shifting if self.shifting else _counting)(self, x)


def test_attention_without_a_head_axis(tmp_path):
    parts = {name: linear(6, 6) for name in "qkv"}
    net = Of(lambda self, x: functional.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x)), **parts)
    same_as_eager(tmp_path, net, torch.randn(1, 8, 6))
    masked = Of(
        lambda self, x: functional.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x), attn_mask=self.m),
        m=torch.ones(1, 8, 8).tril().bool(), **parts,
    )  # fmt: skip
    same_as_eager(tmp_path, masked, torch.randn(1, 8, 6))


class Hidden(nn.Module):
    def __init__(self, model, name):
        super().__init__()
        self.model, self.name = model, name

    def forward(self, x):
        return self.model(**{self.name: x}).last_hidden_state


@pytest.mark.parametrize("kind", ["t5", "swin"])
def test_a_view_of_a_transpose_is_translated(tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "t5":
        config = transformers.T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
        net, example = Hidden(transformers.T5EncoderModel(config), "input_ids"), torch.arange(1, 9)[None]
    else:
        config = transformers.SwinConfig(image_size=32, embed_dim=8, depths=[2], num_heads=[2], window_size=4)
        net, example = Hidden(transformers.SwinModel(config), "pixel_values"), torch.randn(1, 3, 32, 32)
    same_as_eager(tmp_path, net.eval(), example)


def test_what_torch_onnx_could_not_do_is_said_plainly(tmp_path):
    net = Of(lambda self, x: torch.linalg.eigvals(x[0, :4, :4]).abs(), h=linear())
    with pytest.raises(InputError) as caught:
        capture(load_model(save(tmp_path, net, torch.randn(1, 4, 4))))
    text = str(caught.value)
    assert "linalg_eig" in text
    assert "\x1b" not in text
    assert "named above" not in text


def _branch(nodes, output):
    return helper.make_graph(nodes, f"b_{output}", [], [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)])


def _if(*nodes, then, other, **attributes):
    return [*nodes, helper.make_node("If", ["g"], ["y"], then_branch=then, else_branch=other, **attributes)]


def _decided_by_sum():
    return [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["g"]),
    ]


def test_an_if_inside_an_if_whose_condition_is_a_size(tmp_path):
    inner = [
        helper.make_node("Shape", ["x"], ["sh"]), helper.make_node("Gather", ["sh", "i0"], ["n"], axis=0),
        helper.make_node("Equal", ["n", "i1"], ["one"]),
        helper.make_node("If", ["one"], ["t"], then_branch=_branch([helper.make_node("Mul", ["x", "two"], ["a"])], "a"),
                         else_branch=_branch([helper.make_node("Sub", ["x", "two"], ["b"])], "b")),
    ]  # fmt: skip
    other = _branch([helper.make_node("Sub", ["x", "two"], ["e"])], "e")
    constants = {"zero": np.float32(0), "two": np.float32(2), "i0": np.array(0), "i1": np.array(1)}
    nodes = _if(*_decided_by_sum(), then=_branch(inner, "t"), other=other)
    graph = capture(
        load_model(
            _file(tmp_path, nodes, [("y", ["n", 4])], constants, [("x", ["n", 4])]), LoadOptions(dynamic_batch=False)
        )
    )
    for x in (X, -X):
        want = x * 2 if x.sum() > 0 else x - 2
        assert np.array_equal(run(graph, {"x": x})[0], want)
    branches = [a.g for node in graph.model.graph.node for a in node.attribute if a.HasField("g")]
    assert not [node for branch in branches for node in branch.node if node.op_type == "If"]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (helper.make_node("Gelu", ["x"], ["t"], domain="com.microsoft"), "com.microsoft.Gelu"),
        (helper.make_node("DequantizeLinear", ["q", "two"], ["t"]), "quantized already"),
        (
            helper.make_node("Constant", [], ["t"], value=numpy_helper.from_array(X.astype(np.float16))),
            "half precision",
        ),
    ],
    ids=["contrib", "quantized", "half"],
)
def test_what_is_refused_at_the_top_is_refused_in_a_branch(tmp_path, node, words):
    constants = {"zero": np.float32(0), "two": np.float32(2), "q": np.ones((1, 4), np.int8)}
    then, other = _branch([node], "t"), _branch([helper.make_node("Relu", ["x"], ["e"])], "e")
    path = _file(tmp_path, _if(*_decided_by_sum(), then=then, other=other), [("y", [1, 4])], constants)
    model = onnx.load(path)
    with pytest.raises(InputError) as caught:
        graph_from_onnx(model)
    assert words in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_weights_and_ports_of_another_float_in_an_onnx_file_are_refused_by_name(tmp_path, dtype):
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    path = _file(tmp_path, [helper.make_node("MatMul", ["x", "w"], ["y"])], [("y", [1, 4])],
                 {"w": np.eye(4, dtype=dtype)}, element=element)  # fmt: skip
    with pytest.raises(InputError) as caught:
        graph_from_onnx(onnx.load(path))
    assert np.dtype(dtype).name in caught.value.found
    assert "w" in caught.value.found


def test_a_size_of_minus_one_is_an_open_one(tmp_path):
    path = _file(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], [("y", [-1, 4])], inputs=[("x", [-1, 4])])
    fixed = capture(load_model(path, LoadOptions(dynamic_batch=False)))
    assert fixed.inputs[0].shape == (1, 4) == fixed.outputs[0].shape
    open_ = capture(load_model(path, LoadOptions(dynamic_batch=True)))
    assert open_.inputs[0].shape == ("batch", 4)


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[0, 1]),
        helper.make_node("Softmax", ["x"], ["y"], axis=99),
        helper.make_node("Reshape", ["x", "bad"], ["y"]),
    ],
    ids=["stride", "axis", "reshape"],
)
def test_impossible_attributes_are_a_sentence_in_onnx_runtimes_words(tmp_path, node):
    path = _file(tmp_path, [node], [("y", [1, 1, 3, 3])], {"bad": np.array([7, 5])}, inputs=[("x", [1, 1, 4, 4])])
    with pytest.raises(InputError) as caught:
        capture(load_model(path))
    assert "ONNX" in str(caught.value)


def test_an_open_size_is_shown_as_a_question_mark(tmp_path):
    net = Of(lambda self, x: self.c(x), c=nn.Conv2d(3, 2, 3))
    sizes = {2: torch.export.Dim("h", min=4, max=99), 3: torch.export.Dim("w", min=4, max=99)}
    program = torch.export.export(net.eval(), (torch.randn(1, 3, 9, 8),), dynamic_shapes={"x": sizes})
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(InputError) as caught:
        load_model(tmp_path / "net.pt2")
    assert "x:1x3x?x?:float32" in caught.value.found


def test_capture_prints_nothing_of_its_tools(tmp_path, capfd):
    nodes = [helper.make_node("Upsample", ["x", "k"], ["a"], mode="nearest"), helper.make_node("Relu", ["a"], ["y"])]
    path = _file(tmp_path, nodes, [("y", [1, 1, 8, 8])], {"k": np.array([1, 1, 2, 2], np.float32)},
                 inputs=[("x", [1, 1, 4, 4])], opset=9)  # fmt: skip
    capture(load_model(path))
    assert capfd.readouterr() == ("", "")


class Rated(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = linear(8, 1)

    def forward(self, x: torch.Tensor, rate: int) -> torch.Tensor:
        return self.fc(x) * rate


class Raising(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] != 16000:
            raise ValueError("the sampling rate must be 16000")
        return self.fc(x)


@pytest.mark.parametrize(("net", "words"), [(Rated, "rate: int"), (Raising, "the sampling rate must be 16000")])
def test_what_a_torchscript_model_raises_is_told(tmp_path, net, words):
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.script(net().eval()), str(path))
    with pytest.raises(InputError) as caught:
        load_model(path, LoadOptions(inputs=(parse_input("x:1x8"),), trust_code=True))
    assert words in caught.value.found
