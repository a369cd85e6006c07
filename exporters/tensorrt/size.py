"""How large a TensorRT engine will be that only the device can build: an estimate with a band.

An engine holds its weights in the precision they are used in, and kernels and tables per layer. The band is wide
on purpose: tactics are chosen on the device, and some pad or duplicate weights. It is a prior, fitted to nothing.
"""

from __future__ import annotations

import onnx

from edgedeploy.evidence import Evidence, Figure

_BYTES = {onnx.TensorProto.INT8: 1, onnx.TensorProto.FLOAT16: 2, onnx.TensorProto.FLOAT: 2}
_OVERHEAD_BYTES, _LOW_BYTES, _HIGH_BYTES = 20_000, 2_000, 120_000
_HIGH_FACTOR = 1.4
_WEIGHT_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "GRU", "LSTM", "RNN")


def estimate_engine_size(model: onnx.ModelProto) -> Figure:
    """Estimate ``size_mb`` of the engine built from ``model``; float weights count as float16."""
    weights = sum(_bytes(tensor) for tensor in model.graph.initializer)
    layers = max(1, sum(node.op_type in _WEIGHT_OPS for node in model.graph.node))
    return Figure(
        "size_mb",
        (weights + layers * _OVERHEAD_BYTES) / 1e6,
        Evidence.ESTIMATE,
        how=f"engine not built yet: {weights / 1e6:.2f} MB of weights and {layers} layers",
        low=(weights * 0.95 + layers * _LOW_BYTES) / 1e6,
        high=(weights * _HIGH_FACTOR + layers * _HIGH_BYTES) / 1e6,
    )


def _bytes(tensor: onnx.TensorProto) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count * _BYTES.get(tensor.data_type, 8 if tensor.data_type == onnx.TensorProto.INT64 else 4)
