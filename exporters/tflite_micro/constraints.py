"""`check_constraints`: what the integer kernels assume and mostly never check.

One function a constraint; its docstring is the sentence a user reads. A model that breaks one would run without an
error and be wrong (by up to 132 codes), in LiteRT and in TFLite Micro alike.
Source: probes of 652 one-op models and the TFLite quantization specification
(ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from edgedeploy.errors import InputError
from edgedeploy.exporters.tflite_micro.ir import Affine, Operator, Tensor, TfliteModel

Constraint = Callable[[Operator, list[Tensor | None], list[Tensor]], str]
"""(operator, operands, results) → what was found, "" where it holds."""

#: Output codes that kernels assume: (int8 scale, int8 zero point, int16 scale or 0 where there is no int16 kernel).
FIXED_OUTPUTS = {
    "LOGISTIC": (2**-8, -128, 2**-15),
    "TANH": (2**-7, 0, 2**-15),
    "SOFTMAX": (2**-8, -128, 2**-15),
    "LOG_SOFTMAX": (2**-4, 127, 0.0),
    "L2_NORMALIZATION": (2**-7, 0, 0.0),
}

#: Kernels that copy, compare or average codes as they are.
_RAW = frozenset(
    {
        *("CONCATENATION", "PACK", "PAD", "PADV2", "MIRROR_PAD", "SPLIT", "SPLIT_V", "UNPACK", "SLICE"),
        *("STRIDED_SLICE", "RESHAPE", "EXPAND_DIMS", "SQUEEZE", "TRANSPOSE", "BROADCAST_TO", "GATHER"),
        *("MAXIMUM", "MINIMUM", "SELECT_V2", "MAX_POOL_2D", "AVERAGE_POOL_2D", "REDUCE_MAX"),
        *("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "RELU6", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH"),
    }
)

_WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"})

#: Axis of the output channels in stored weights.
_CHANNEL_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "TRANSPOSE_CONV": 0, "FULLY_CONNECTED": 0}

#: Kernels without an int16 version in TFLite Micro.
_EIGHT_BIT_ONLY = frozenset(
    {
        *("GATHER", "REDUCE_MAX", "RESIZE_BILINEAR", "MIRROR_PAD", "PRELU", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH"),
        *("HARD_SWISH", "LOG_SOFTMAX", "L2_NORMALIZATION", "ARG_MAX"),
    }
)

_LARGEST_RANK = {"TRANSPOSE": 5, "BROADCAST_TO": 5, "BATCH_MATMUL": 5, "STRIDED_SLICE": 4, "SLICE": 5}


def equal_scales(operator: Operator, operands: list[Tensor | None], results: list[Tensor]) -> str:
    """The kernel copies or compares codes, so inputs and outputs must have one scale and zero point."""
    floats = [tensor for tensor in (*operands, *results) if tensor is not None and tensor.quantization is not None]
    first = floats[0] if floats else None
    if operator.builtin not in _RAW or first is None or first.quantization is None:
        return ""
    other = next((tensor for tensor in floats if not first.quantization.same_as(tensor.quantization)), None)
    return "" if other is None else f"{first.name!r} {first.quantization} and {other.name!r} {other.quantization}"


def fixed_output(operator: Operator, operands: list[Tensor | None], results: list[Tensor]) -> str:
    """The kernel assumes its output's scale and zero point whatever the file says."""
    if operator.builtin not in FIXED_OUTPUTS or not results[0].dtype.startswith("int"):
        return ""
    scale, point, scale16 = FIXED_OUTPUTS[operator.builtin]
    wanted = Affine.of(scale16) if results[0].dtype == "int16" else Affine.of(scale, point)
    return "" if wanted.same_as(results[0].quantization) else f"{results[0].quantization} instead of {wanted}"


def positive_beta(operator: Operator, operands: list[Tensor | None], results: list[Tensor]) -> str:
    """Softmax needs a positive beta."""
    beta = operator.options.get("beta", 1.0)
    return f"beta {beta}" if operator.builtin == "SOFTMAX" and beta <= 0 else ""


def symmetric_weights(operator: Operator, operands: list[Tensor | None], results: list[Tensor]) -> str:
    """The kernel ignores a zero point of the weights: it must be 0, and the weights constant int8."""
    weights = _operand(operands, 1)
    if operator.builtin not in _WEIGHTED or weights is None:
        return ""
    if weights.data is not None and weights.dtype != "int8":
        return f"{weights.dtype} weights"
    if weights.quantization is None:
        return "weights without a scale"
    found = np.unique(weights.quantization.zero_point)
    return "" if found.tolist() == [0] else f"zero points {found.tolist()}"


def channel_axis(operator: Operator, operands: list[Tensor | None], results: list[Tensor]) -> str:
    """Scales of weights run along the output channels, one for each."""
    weights = _operand(operands, 1)
    if operator.builtin not in _WEIGHTED or weights is None or weights.quantization is None:
        return ""
    axis, affine = _CHANNEL_AXIS[operator.builtin], weights.quantization
    if affine.per_channel and (affine.axis != axis or affine.scale.size != weights.shape[axis]):
        return f"{affine} for weights of shape {weights.shape}"
    return ""


def single_scale(operator: Operator, operands: list[Tensor | None], results: list[Tensor]) -> str:
    """Only weights of convolutions and fully connected layers may have a scale per channel; others read the first."""
    for position, tensor in enumerate((*operands, *results)):
        if tensor is None or tensor.quantization is None or not tensor.quantization.per_channel:
            continue
        if operator.builtin not in _WEIGHTED or position not in (1, *_bias_positions(operator)):
            return f"{tensor.name or 'a constant'!r} has {tensor.quantization}"
    return ""


def bias_type(operator: Operator, operands: list[Tensor | None], results: list[Tensor]) -> str:
    """There always is a bias: int32 beside int8 activations, int64 beside int16 ones (int32 is read as garbage)."""
    if operator.builtin not in _WEIGHTED or results[0].dtype not in ("int8", "int16"):
        return ""
    bias = _operand(operands, _bias_positions(operator)[0])
    wanted = "int64" if results[0].dtype == "int16" else "int32"
    if bias is None:
        return "no bias"
    return "" if bias.dtype == wanted else f"{bias.dtype} beside {results[0].dtype} activations"


def bias_scale(operator: Operator, operands: list[Tensor | None], results: list[Tensor]) -> str:
    """The bias is added to the accumulator as it is: its scale is the input's times the weights', zero point 0."""
    if operator.builtin not in _WEIGHTED:
        return ""
    bias, weights = _operand(operands, _bias_positions(operator)[0]), _operand(operands, 1)
    source = _operand(operands, 2 if operator.builtin == "TRANSPOSE_CONV" else 0)
    affines = [tensor.quantization if tensor is not None else None for tensor in (bias, weights, source)]
    if any(affine is None for affine in affines):
        return ""
    own, kernel, data = (affine for affine in affines if affine is not None)
    product = kernel.scale.astype(np.float64) * float(data.scale[0])
    if np.any(own.zero_point) or own.scale.shape != product.shape or not np.allclose(own.scale, product, rtol=1e-5):
        return f"bias {own}, product {Affine.of(product)}"
    return ""


def zero_point_of_int16(operator: Operator, operands: list[Tensor | None], results: list[Tensor]) -> str:
    """int16 kernels ignore zero points: they must be 0."""
    for tensor in (*operands, *results):
        affine = tensor.quantization if tensor is not None and tensor.dtype == "int16" else None
        if tensor is not None and affine is not None and np.any(affine.zero_point):
            return f"{tensor.name!r} has {affine}"
    return ""


def one_width(operator: Operator, operands: list[Tensor | None], results: list[Tensor]) -> str:
    """Activations of one operator have one width (QUANTIZE and CAST apart)."""
    if operator.builtin in ("QUANTIZE", "CAST", "DEQUANTIZE", "UNIDIRECTIONAL_SEQUENCE_LSTM"):
        return ""
    skip = {1, *_bias_positions(operator)} if operator.builtin in _WEIGHTED else set()
    widths = {
        tensor.dtype
        for position, tensor in enumerate(operands)
        if tensor is not None and position not in skip and tensor.dtype in ("int8", "int16")
    }
    widths |= {tensor.dtype for tensor in results if tensor.dtype in ("int8", "int16")}
    return "" if len(widths) < 2 else " and ".join(sorted(widths))


def has_kernel(operator: Operator, operands: list[Tensor | None], results: list[Tensor]) -> str:
    """The operator has a kernel for the width of its activations."""
    wide = any(tensor is not None and tensor.dtype == "int16" for tensor in (*operands, *results))
    return "int16 activations; it has an int8 kernel only" if wide and operator.builtin in _EIGHT_BIT_ONLY else ""


def quantized(operator: Operator, operands: list[Tensor | None], results: list[Tensor]) -> str:
    """Every activation is an integer with a scale: there is no float kernel in the firmware's op resolver."""
    if operator.builtin in ("CAST", "DEQUANTIZE"):
        return ""
    for tensor in (*operands, *results):
        if tensor is None:
            continue
        if tensor.dtype.startswith("float"):
            return f"{tensor.name!r} is {tensor.dtype}"
        if tensor.dtype in ("int8", "int16") and tensor.quantization is None:
            return f"{tensor.name or 'a constant'!r} has no scale"
        if tensor.quantization is not None and not _usable(tensor.quantization):
            return f"{tensor.name or 'a constant'!r} has {tensor.quantization}"
    return ""


def rank(operator: Operator, operands: list[Tensor | None], results: list[Tensor]) -> str:
    """The kernel takes so many axes and no more."""
    limit = _LARGEST_RANK.get(operator.builtin)
    if limit is None:
        return ""
    largest = max(len(tensor.shape) for tensor in (*operands, *results) if tensor is not None)
    return "" if largest <= limit else f"{largest} axes, at most {limit}"


def int32_indices(operator: Operator, operands: list[Tensor | None], results: list[Tensor]) -> str:
    """Indices, shapes and axes are int32."""
    bias = _bias_positions(operator) if operator.builtin in _WEIGHTED else ()
    for position, tensor in enumerate(operands):
        if tensor is not None and tensor.dtype == "int64" and position not in bias:
            return f"operand {position} is int64"
    return ""


CONSTRAINTS: tuple[Constraint, ...] = (
    quantized,
    has_kernel,
    one_width,
    zero_point_of_int16,
    single_scale,
    equal_scales,
    fixed_output,
    positive_beta,
    symmetric_weights,
    channel_axis,
    bias_type,
    bias_scale,
    rank,
    int32_indices,
)


def check_constraints(model: TfliteModel) -> None:
    """Refuse a model that breaks a constraint.

    Raises:
        InputError: naming the first operator that does, the constraint and what was found.
    """
    for operator, operands, results in _operators(model):
        for constraint in CONSTRAINTS:
            found = constraint(operator, operands, results)
            if found:
                sentence = (constraint.__doc__ or "").strip()
                raise InputError(
                    f"{operator.builtin} at {operator.source!r} would be wrong at run time: {sentence}",
                    found=found,
                    remedy="Quantize with the scheme 'tflite' or 'tflite-int16x8', which keeps to the kernels' rules.",
                )


def _operators(model: TfliteModel) -> Iterable[tuple[Operator, list[Tensor | None], list[Tensor]]]:
    for operator in model.operators:
        operands = [model.tensors[index] if index >= 0 else None for index in operator.inputs]
        yield operator, operands, [model.tensors[index] for index in operator.outputs]


def _bias_positions(operator: Operator) -> tuple[int, ...]:
    return (3,) if operator.builtin == "TRANSPOSE_CONV" else (2,)


def _operand(operands: list[Tensor | None], position: int) -> Tensor | None:
    return operands[position] if position < len(operands) else None


def _usable(affine: Affine) -> bool:
    return bool(np.all(np.isfinite(affine.scale)) and np.all(affine.scale > 0))
