"""The quantization rules of the runtimes that edgedeploy knows; a third party's backend brings its own `Scheme`."""

from __future__ import annotations

from dataclasses import replace

from edgedeploy.calibration.scheme import EVERY_OP, FixedOutput, IntegerFormat, Placement, Scheme

INT8_WEIGHTS = IntegerFormat(symmetric=True, narrow=True, per_channel=True)
"""Symmetric int8, one scale per output channel, code -128 unused: what every runtime's integer kernels take."""

#: Ops that only move or select elements: codes pass through unchanged, so input and output share their scale.
DATA_MOVEMENT: frozenset[str] = frozenset(
    [
        "DepthToSpace",
        "Dropout",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MaxPool",
        "Pad",
        "Reshape",
        "Resize",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    ]
)

# ONNX Runtime, x86 and ARM: the ops with integer kernels in onnxruntime 1.31 (QLinear* and the ops that take 8-bit
# tensors). Softmax stays float: its 8-bit output would have steps of 1/256.
_ONNXRUNTIME_MOVES = frozenset(
    ["Flatten", "Gather", "MaxPool", "Pad", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"]
)
_ONNXRUNTIME_OPS = _ONNXRUNTIME_MOVES | {
    "Add",
    "AveragePool",
    "Concat",
    "Conv",
    "Gemm",
    "GlobalAveragePool",
    "LeakyRelu",
    "MatMul",
    "Mul",
    "Sigmoid",
}

ONNXRUNTIME_X86 = Scheme(
    name="onnxruntime-x86",
    activation=IntegerFormat(signed=False),
    weight=INT8_WEIGHTS,
    bias="int32",
    op_types=_ONNXRUNTIME_OPS,
    shared_scale=DATA_MOVEMENT,
    weight_formats={"Gather": IntegerFormat(signed=False)},
    float_outputs=frozenset({"Gemm", "MatMul"}),
)
"""Unsigned asymmetric activations, signed weights: the pair that AVX512-VNNI and AVX-VNNI multiply in one step."""

ONNXRUNTIME_X86_REDUCED = replace(
    ONNXRUNTIME_X86, name="onnxruntime-x86-reduced", weight=replace(INT8_WEIGHTS, reduced=True)
)
"""7-bit weights: without VNNI the sum of two 8-bit products saturates at 16 bits."""

ONNXRUNTIME_ARM = replace(
    ONNXRUNTIME_X86,
    name="onnxruntime-arm",
    activation=IntegerFormat(),
    weight_formats={"Gather": IntegerFormat()},
)
"""Signed activations and weights: the fast pair of ARM's dot-product instructions."""

TENSORRT = Scheme(
    name="tensorrt",
    activation=IntegerFormat(symmetric=True, narrow=True),
    weight=INT8_WEIGHTS,
    bias="float32",
    op_types=frozenset({"Conv", "Gather", "Gemm", "MatMul"}),
    placement=Placement.INPUTS,
    fused_activations=frozenset({"Clip", "Relu"}),
    weight_axis={"MatMul": -1, "Gather": 0},
    residual_one_branch=True,
    masked_attention_float=True,
)
"""Explicit Q/DQ as TensorRT's parser takes it: symmetric int8, zero point 0, float bias, Q/DQ on inputs only."""

_QNN_WEIGHTS = {op: IntegerFormat(signed=False) for op in ("Gather", "InstanceNormalization", "LayerNormalization")}

QNN_A8W8 = Scheme(
    name="qnn-a8w8",
    activation=IntegerFormat(signed=False),
    weight=INT8_WEIGHTS,
    bias="int32",
    op_types=EVERY_OP,
    shared_scale=DATA_MOVEMENT,
    fixed_outputs={"Softmax": FixedOutput(1 / 256, 0), "Sigmoid": FixedOutput(1 / 256, 0)},
    weight_formats=_QNN_WEIGHTS,
    absorbed_activations=True,
    higher=IntegerFormat(bits=16, signed=False),
    # QNN gives these its own encoding at 16 bits, whatever the graph says (seen in the DLC).
    higher_fixed_outputs={
        "Softmax": FixedOutput(1 / 65536, 0),
        "Sigmoid": FixedOutput(1 / 65536, 0),
        "Tanh": FixedOutput(1 / 32768, 32768),
    },
)
"""Hexagon HTP: every tensor in integers, activations uint8; tensors that need it are raised to uint16."""

QNN_A16W8 = replace(
    QNN_A8W8,
    name="qnn-a16w8",
    activation=IntegerFormat(bits=16, signed=False),
    fixed_outputs={"Softmax": FixedOutput(1 / 65536, 0), "Sigmoid": FixedOutput(1 / 65536, 0)},
    higher=None,
    higher_fixed_outputs={},
)
"""Hexagon HTP with uint16 activations; V68 has no 16-bit weights."""

TFLITE = Scheme(
    name="tflite",
    activation=IntegerFormat(),
    weight=INT8_WEIGHTS,
    bias="int32",
    op_types=EVERY_OP,
    shared_scale=DATA_MOVEMENT
    | {"AveragePool", "Clip", "Concat", "GlobalMaxPool", "Max", "Min", "ReduceMax", "ReduceMin", "Where"},
    fixed_outputs={
        "Softmax": FixedOutput(1 / 256, -128),
        "Sigmoid": FixedOutput(1 / 256, -128),
        "Tanh": FixedOutput(1 / 128, 0),
        "LogSoftmax": FixedOutput(16 / 256, 127),
    },
    weight_formats={op: IntegerFormat() for op in ("Gather", "InstanceNormalization", "LayerNormalization")},
    fused_bias=True,
    higher=IntegerFormat(bits=16, symmetric=True, narrow=True),
    higher_fixed_outputs={op: FixedOutput(2**-15, 0) for op in ("Softmax", "Sigmoid", "Tanh")},
)
"""TFLite int8 (ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec)."""

TFLITE_INT16X8 = replace(
    TFLITE,
    name="tflite-int16x8",
    activation=IntegerFormat(bits=16, symmetric=True, narrow=True),
    bias="int64",
    fixed_outputs={op: FixedOutput(2**-15, 0) for op in ("Softmax", "Sigmoid", "Tanh")},
    higher=None,
    higher_fixed_outputs={},
)
"""TFLite with int16 activations, zero point 0, and int64 biases."""

SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        ONNXRUNTIME_X86,
        ONNXRUNTIME_X86_REDUCED,
        ONNXRUNTIME_ARM,
        TENSORRT,
        QNN_A8W8,
        QNN_A16W8,
        TFLITE,
        TFLITE_INT16X8,
    )
}
"""Every known scheme by name."""
