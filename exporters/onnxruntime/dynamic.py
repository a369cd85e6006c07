"""Dynamic quantization: int8 weights, one scale a channel, and activations quantized while the model runs."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx

from edgedeploy.calibration.scheme import Scheme
from edgedeploy.graph.ir_edit import QUANTIZER_SUFFIXES
from edgedeploy.graph.names import rename_tensors


def quantize_dynamically(model: onnx.ModelProto, scheme: Scheme) -> onnx.ModelProto:
    """Quantize every MatMul that has a constant weight; convolutions stay float.

    Activations are uint8 whatever the scheme says, because DynamicQuantizeLinear gives nothing else; of the scheme
    only the reduced weight range counts.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = _without_reserved_names(model)
    # Shapes inferred before the rewrite make the quantizer fail ("Inferred shape and existing shape differ").
    del model.graph.value_info[:]
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "dynamic.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul"],  # more would emit QAttention nodes that newer opsets make invalid
            per_channel=True,
            reduce_range=scheme.weight.reduced,
            weight_type=QuantType.QInt8,
            extra_options={
                "MatMulConstBOnly": True,
                # Fused and opset-20 graphs hold tensors whose type its shape inference does not find.
                "DefaultTensorType": onnx.TensorProto.FLOAT,
            },
        )
        return onnx.load(path)


def _without_reserved_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which no tensor bears a name that the quantizer will give to the parts of another.

    It calls the scale of tensor ``t`` ``t_scale`` without a look at what is there. Inputs and outputs keep their names;
    where one of them is such a name, the tensor it would belong to gives way.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    ports = {value.name for value in (*result.graph.input, *result.graph.output)}
    names = {name for node in result.graph.node for name in node.output} | {t.name for t in result.graph.initializer}
    reserved = {name for name in names if name.endswith(QUANTIZER_SUFFIXES)}
    owners = {name.removesuffix(suffix) for name in ports for suffix in QUANTIZER_SUFFIXES if name.endswith(suffix)}
    renamed: dict[str, str] = {}
    for name in sorted((reserved | (owners & names)) - ports):
        new = f"{name}_value"
        while new in names:
            new += "_"
        names.add(new)
        renamed[name] = new
    rename_tensors(result.graph, renamed)
    return result


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the quantizer's advice to pre-process, which the capture has done already."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
