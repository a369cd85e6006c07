"""Older opsets for devices whose TensorRT is older than the canonical graph."""

from __future__ import annotations

import onnx
from onnx import version_converter

from edgedeploy.errors import InputError


def to_opset(model: onnx.ModelProto, opset: int, device: str) -> onnx.ModelProto:
    """Convert to an older opset; `InputError` names what cannot be said in it."""
    try:
        converted = version_converter.convert_version(model, opset)
        onnx.checker.check_model(converted)
    except (RuntimeError, onnx.checker.ValidationError) as error:
        raise InputError(
            f"The model cannot be expressed in opset {opset}, the newest that TensorRT on {device} reads.",
            found=str(error).strip().splitlines()[-1],
            remedy="Replace the op in the model, or choose a device with a newer TensorRT.",
        ) from None
    return onnx.shape_inference.infer_shapes(converted)
