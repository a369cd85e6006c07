"""Dynamic quantization: int8 weights, one scale a channel, and activations quantized while the model runs."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx

from edgedeploy.calibration.scheme import Scheme


def quantize_dynamically(model: onnx.ModelProto, scheme: Scheme) -> onnx.ModelProto:
    """Quantize every MatMul that has a constant weight; convolutions stay float.

    Activations are uint8 whatever the scheme says, because DynamicQuantizeLinear gives nothing else; of the scheme
    only the reduced weight range counts.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

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
