"""Small graphs that each hold one hard case of quantization, and what tests ask of a quantized model."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from calibration_graphs import graph_from_text
from onnx import numpy_helper

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.calibration.session import Calibration
from edgedeploy.calibration.simulate import simulate, sqnr_db
from edgedeploy.graph.graph import Graph


def normal(*shape: int, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """Reproducible float32 normal values."""
    return (scale * np.random.default_rng(seed + sum(shape)).standard_normal(shape)).astype(np.float32)


def feeds(graph: Graph, count: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Random arrays for every input: normal floats, integers below 7, masks that are mostly true."""
    random = np.random.default_rng(seed)
    result = {}
    for spec in graph.inputs:
        shape = (count, *(size if isinstance(size, int) else 4 for size in spec.shape[1:]))
        if spec.dtype == "bool":
            result[spec.name] = random.random(shape) < 0.8
        elif spec.dtype.startswith("int"):
            result[spec.name] = random.integers(0, 7, shape).astype(spec.dtype)
        else:
            result[spec.name] = random.standard_normal(shape).astype(np.float32)
    return result


def calibrated(graph: Graph):
    """The table of a graph over random data, and some of the samples: structure is tested here, not generalization."""
    arrays = feeds(graph, count=32)
    table = Calibration(graph, ArrayDataset(arrays)).table
    return table, list(ArrayDataset({name: array[:8] for name, array in arrays.items()}))


def error_db(graph: Graph, model: onnx.ModelProto, samples) -> float:
    """Output SQNR of a quantized model against its float graph."""
    return sqnr_db(simulate(graph, samples, threads=1), simulate(model, samples, threads=1))


class Quantized:
    """Looks up nodes and constants of a Q/DQ model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        onnx.checker.check_model(model, full_check=True)
        self.model = model
        self.nodes = list(model.graph.node)
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}

    def ops(self) -> Counter:
        return Counter(node.op_type for node in self.nodes)

    def node(self, output: str) -> onnx.NodeProto:
        """The node that computes what was called ``output`` in the float graph."""
        for name in (f"{output}_float", output):
            node = self.producer.get(name)
            if node is not None and node.op_type not in {"DequantizeLinear", "QuantizeLinear"}:
                return node
        raise KeyError(output)

    def dequantize(self, name: str) -> onnx.NodeProto | None:
        """The DequantizeLinear that makes an operand, ``None`` where it is float."""
        node = self.producer.get(name)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def is_integer(self, name: str) -> bool:
        return self.dequantize(name) is not None

    def scale(self, name: str) -> np.ndarray:
        """Scale of the DequantizeLinear that makes an operand."""
        return self.constants[self.dequantize(name).input[1]]

    def zero_point(self, name: str) -> np.ndarray:
        return self.constants[self.dequantize(name).input[2]]

    def codes(self, name: str) -> np.ndarray:
        """Integer values of a constant operand."""
        return self.constants[self.dequantize(name).input[0]]

    def stored(self, name: str) -> str | None:
        """The name under which a rounded tensor is read: what it dequantizes to, ``None`` where it stays float."""
        for node in self.nodes:
            if node.op_type == "QuantizeLinear" and node.input[0] in {name, f"{name}_float"}:
                return next(n.output[0] for n in self.nodes if n.input[0] == node.output[0])
        return None


def residual() -> Graph:
    """Two convs, the second added to its input; ends in a Gemm."""
    return graph_from_text(
        """residual (float[1, 4, 8, 8] x) => (float[1, 5] y) {
            c1 = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
            r1 = Relu(c1)
            c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2)
            a = Add(r1, c2)
            r2 = Relu(a)
            p = GlobalAveragePool(r2)
            f = Flatten(p)
            y = Gemm <transB = 1> (f, w3, b3)
        }""",
        w1=normal(8, 4, 3, 3),
        b1=normal(8),
        w2=normal(8, 8, 3, 3, scale=0.1),
        w3=normal(5, 8),
        b3=normal(5),
    )


def branches() -> Graph:
    """Concat of a depthwise and a grouped conv, a pooled and a resized copy; every move in between."""
    return graph_from_text(
        """branches (float[1, 8, 8, 8] x) => (float[1, 24, 8, 8] y) {
            d = Conv <group = 8, pads = [1, 1, 1, 1]> (x, wd, bd)
            d6 = Clip(d, zero, six)
            g = Conv <group = 2, pads = [1, 1, 1, 1]> (x, wg, bg)
            m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
            s = Resize <mode = "nearest"> (m, , scales)
            y = Concat <axis = 1> (d6, g, s)
        }""",
        wd=normal(8, 1, 3, 3),
        bd=normal(8),
        wg=normal(8, 4, 3, 3),
        bg=normal(8),
        zero=np.float32(0),
        six=np.float32(6),
        scales=np.array([1, 1, 2, 2], np.float32),
    )


def upsampling() -> Graph:
    """Grouped and plain ConvTranspose with biases."""
    return graph_from_text(
        """up (float[1, 8, 4, 4] x) => (float[1, 4, 16, 16] y) {
            g = ConvTranspose <group = 2, strides = [2, 2], kernel_shape = [2, 2]> (x, wg, bg)
            r = Relu(g)
            y = ConvTranspose <strides = [2, 2], kernel_shape = [2, 2]> (r, wp, bp)
        }""",
        wg=normal(8, 3, 2, 2),
        bg=normal(6),
        wp=normal(6, 4, 2, 2),
        bp=normal(4),
    )


def attention(masked: bool = False) -> Graph:
    """One head of self-attention over 6 positions; masked by a Where on a boolean input, or not."""
    mask = "k = Where(mask, s, low)" if masked else "k = Identity(s)"
    inputs = "float[1, 6, 16] x, bool[1, 6, 6] mask" if masked else "float[1, 6, 16] x"
    return graph_from_text(
        f"""attention ({inputs}) => (float[1, 6, 16] y) {{
            q0 = MatMul(x, wq)
            q = Add(q0, bq)
            k0 = MatMul(x, wk)
            kt = Transpose <perm = [0, 2, 1]> (k0)
            v = MatMul(x, wv)
            s0 = MatMul(q, kt)
            s = Mul(s0, factor)
            {mask}
            p = Softmax <axis = -1> (k)
            o = MatMul(p, v)
            y = Add(o, x)
        }}""",
        wq=normal(16, 16, scale=0.3),
        bq=normal(16),
        wk=normal(16, 16, scale=0.3, seed=1),
        wv=normal(16, 16, scale=0.3, seed=2),
        factor=np.float32(0.25),
        **({"low": np.float32(np.finfo(np.float32).min)} if masked else {}),
    )


def embedding() -> Graph:
    """Token embedding, layer normalization, Gelu-free feed-forward; integer input."""
    return graph_from_text(
        """embedding (int64[1, 6] ids) => (float[1, 6, 8] y) {
            e = Gather(words, ids)
            n = LayerNormalization <axis = -1> (e, gamma, beta)
            m = MatMul(n, w)
            b = Add(m, bias)
            y = Sigmoid(b)
        }""",
        words=normal(7, 8),
        gamma=1 + normal(8, scale=0.1),
        beta=normal(8, scale=0.1),
        w=normal(8, 8),
        bias=normal(8, seed=3),
    )


def constants() -> Graph:
    """Constants on either side of arithmetic, a Clip without a lower bound, and a shape computed at run time."""
    return graph_from_text(
        """constants (float[n, 4] x) => (float[n, 4] y, float[n, 2, 2] z) {
            a = Mul(two, x)
            b = Sub(one, a)
            c = Clip(b, , top)
            y = Add(c, offset)
            size = Shape(x)
            first = Gather(size, zero)
            count = Unsqueeze(first, zeros)
            target = Concat <axis = 0> (count, rest)
            z = Reshape(c, target)
        }""",
        two=np.float32(2),
        one=np.float32(1),
        top=np.float32(1.5),
        offset=normal(4),
        zero=np.array(0, np.int64),
        zeros=np.array([0], np.int64),
        rest=np.array([2, 2], np.int64),
    )


def shared_weight() -> Graph:
    """One square weight read by a Gemm as rows and by a MatMul as columns."""
    return graph_from_text(
        """shared (float[1, 6] x) => (float[1, 6] y) {
            g = Gemm <transB = 1> (x, w)
            y = MatMul(g, w)
        }""",
        w=normal(6, 6),
    )


def activation_with_two_readers() -> Graph:
    """A conv that a ReLU6 and an Add both read."""
    return graph_from_text(
        """readers (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y) {
            c = Conv(x, w)
            six = Clip(c, zero, top)
            a = Add(c, six)
            y = Conv(a, w)
        }""",
        w=normal(4, 4, 1, 1),
        zero=np.float32(0),
        top=np.float32(6),
    )


GRAPHS = {
    function.__name__: function
    for function in (
        residual,
        branches,
        upsampling,
        attention,
        embedding,
        constants,
        shared_weight,
        activation_with_two_readers,
    )
}


def chain(uneven: bool):
    """Conv, Relu, depthwise, ReLU6, conv; optionally with channels of very different scale, the same function."""
    random = np.random.default_rng(3)
    first, depth, last = normal(16, 3, 1, 1, scale=0.5), normal(16, 1, 3, 3, scale=0.2), normal(5, 16, 1, 1)
    if uneven:
        one, two = (2.0 ** random.uniform(-6, 0, 16) for _ in range(2))
        first = first * one[:, None, None, None]
        depth = depth * (two / one)[:, None, None, None]
        last = last / two[None, :, None, None]
    return graph_from_text(
        """chain (float[1, 3, 8, 8] x) => (float[1, 5, 8, 8] y) {
            a = Conv (x, w1)
            b = Relu(a)
            c = Conv <group = 16, pads = [1, 1, 1, 1]> (b, w2)
            d = Clip(c, zero, six)
            y = Conv (d, w3)
        }""",
        w1=first.astype(np.float32),
        w2=depth.astype(np.float32),
        w3=last.astype(np.float32),
        zero=np.float32(0),
        six=np.float32(6),
    )
