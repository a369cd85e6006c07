"""A tiny model whose right outputs are known: it shows whether a machine multiplies 8-bit integers exactly.

Its operands are the ones that saturate wherever anything does: codes at the end of their range, weights of ±127. All
scales are powers of two and all sums stay below 2^24, so that every right output is exact in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS, WIDTH, CHANNELS, EXTENT, KERNEL = 5, 64, 16, 6, 3
#: Scale of the convolution's output; a power of two, large enough that no right output saturates.
CONV_SCALE = 2.0**16


def probe(*, signed: bool) -> onnx.ModelProto:
    """A static product, a convolution and a dynamic product, as an artefact with such activations holds them.

    Inputs ``rows`` (5, 64) and ``image`` (1, 16, 6, 6), float32; outputs ``product``, ``convolution``, ``dynamic``.
    """
    activation = np.int8 if signed else np.uint8
    constants = {
        "one": np.float32(1),
        "ones": np.ones(WIDTH, np.float32),
        "zeros": np.zeros(WIDTH, np.int8),
        "zero": np.int8(0),
        "low": activation(-128 if signed else 0),
        "offset": np.float32(CONV_SCALE),
        "middle": activation(0 if signed else 128),
        "weight": _weight(),
        "filter": _filter(),
    }
    nodes = [
        *_quantized("rows", "one", "low"),
        helper.make_node("DequantizeLinear", ["weight", "ones", "zeros"], ["weight_real"], axis=1),
        helper.make_node("MatMul", ["rows_real", "weight_real"], ["product"]),
        *_quantized("image", "one", "low"),
        helper.make_node("DequantizeLinear", ["filter", "ones", "zeros"], ["filter_real"], axis=0),
        helper.make_node("Conv", ["image_real", "filter_real"], ["convolved"]),
        *_quantized("convolved", "offset", "middle", "convolution"),
        helper.make_node("DynamicQuantizeLinear", ["rows"], ["codes", "scale", "zero_point"]),
        helper.make_node("MatMulInteger", ["codes", "weight", "zero_point", "zero"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["sums_real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["scale", "ones"], ["scales"]),
        helper.make_node("Mul", ["sums_real", "scales"], ["dynamic"]),
    ]
    graph = helper.make_graph(
        nodes,
        "probe",
        [_value("rows", [ROWS, WIDTH]), _value("image", [1, CHANNELS, EXTENT, EXTENT])],
        [_value(name, None) for name in ("product", "convolution", "dynamic")],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def feeds() -> dict[str, NDArray[np.float32]]:
    """The inputs: mostly 255, with 0 among them so that a dynamic scale is 1."""
    random = np.random.default_rng(0)

    def codes(*shape: int) -> NDArray[np.float32]:
        values = np.where(random.random(shape) < 0.75, 255, random.integers(0, 256, shape)).astype(np.float32)
        values.flat[0] = 0
        return values

    return {"rows": codes(ROWS, WIDTH), "image": codes(1, CHANNELS, EXTENT, EXTENT)}


def expected(inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """The right outputs, in 64-bit integers; the same for either sign, for ``low`` is the code of 0."""
    rows, image = (inputs[name].astype(np.int64) for name in ("rows", "image"))
    product = (rows @ _weight().astype(np.int64)).astype(np.float32)
    taps, size = _filter().astype(np.int64), EXTENT - KERNEL + 1
    sums = np.zeros((1, WIDTH, size, size), np.int64)
    for y in range(KERNEL):
        for x in range(KERNEL):
            sums += np.einsum("nchw,oc->nohw", image[:, :, y : y + size, x : x + size], taps[:, :, y, x])
    convolution = (np.rint(sums / CONV_SCALE) * CONV_SCALE).astype(np.float32)
    return {"product": product, "convolution": convolution, "dynamic": product}


def _weight() -> NDArray[np.int8]:
    """Columns of 127, of -127, and of both in turn."""
    signs = np.ones((WIDTH, WIDTH), np.int8)
    signs[:, 1::3] = -1
    signs[::2, 2::3] = -1
    return 127 * signs


def _filter() -> NDArray[np.int8]:
    return _weight().T[:, :CHANNELS].repeat(KERNEL**2, axis=1).reshape(WIDTH, CHANNELS, KERNEL, KERNEL)


def _quantized(name: str, scale: str, zero_point: str, output: str = "") -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [name, scale, zero_point], [f"{name}_codes"]),
        helper.make_node("DequantizeLinear", [f"{name}_codes", scale, zero_point], [output or f"{name}_real"]),
    ]


def _value(name: str, shape: list[int] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
