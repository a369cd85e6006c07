"""Each rule of the integer kernels that no runtime checks: the writer refuses a model that breaks it."""

from __future__ import annotations

import numpy as np
import pytest

from edgedeploy.errors import InputError
from edgedeploy.exporters.tflite_micro.constraints import CONSTRAINTS, check_constraints
from edgedeploy.exporters.tflite_micro.ir import Affine, Operator, Tensor, TfliteModel

A = Affine.of(0.1, 3)
B = Affine.of(0.2, 3)
SYMMETRIC = Affine.of(0.1)


def activation(affine=A, dtype="int8", shape=(1, 4, 4, 2), name="t"):
    return Tensor(name, shape, dtype, affine)


def constant(data, affine=None, dtype="int32"):
    array = np.asarray(data, dtype)
    return Tensor("c", array.shape, dtype, affine, array)


def build(builtin, operands, results, **options):
    model = TfliteModel()
    inputs = [-1 if tensor is None else model.add(tensor) for tensor in operands]
    outputs = [model.add(tensor) for tensor in results]
    model.operators.append(Operator(builtin, tuple(inputs), tuple(outputs), options, "layer"))
    return model


def convolution(source=None, weights=None, bias=None, result=None, *, drop_bias=False):
    source = source or activation()
    weights = weights or constant(np.ones((3, 1, 1, 2)), Affine.of([0.1, 0.2, 0.3], 0, 0), "int8")
    product = Affine.of(weights.quantization.scale.astype(np.float64) * float(source.quantization.scale[0]))
    bias = None if drop_bias else bias or constant(np.zeros(3), product)
    return build("CONV_2D", [source, weights, bias], [result or activation(shape=(1, 4, 4, 3))])


BROKEN = {
    "quantized": [
        build("RELU", [activation(None)], [activation()]),
        build("RELU", [Tensor("f", (1, 4), "float32")], [activation()]),
        build("RELU", [activation(Affine.of(0.0))], [activation()]),
        build("RELU", [activation(Affine.of(float("nan")))], [activation()]),
    ],
    "has_kernel": [
        build("GATHER", [activation(SYMMETRIC, "int16"), constant([0])], [activation(SYMMETRIC, "int16")]),
        build("PRELU", [activation(SYMMETRIC, "int16")] * 2, [activation(SYMMETRIC, "int16")]),
        build("RESIZE_BILINEAR", [activation(SYMMETRIC, "int16"), constant([8, 8])], [activation(SYMMETRIC, "int16")]),
        build("HARD_SWISH", [activation(SYMMETRIC, "int16")], [activation(SYMMETRIC, "int16")]),
    ],
    "one_width": [
        build("ADD", [activation(), activation(SYMMETRIC, "int16")], [activation()]),
        build("MEAN", [activation(), constant([1])], [activation(SYMMETRIC, "int16")]),
    ],
    "zero_point_of_int16": [build("RELU", [activation(A, "int16")], [activation(SYMMETRIC, "int16")])],
    "single_scale": [
        build("ADD", [activation(), constant([[1, 2]], Affine.of([0.1, 0.2], 0, 1), "int8")], [activation()]),
        build("BATCH_MATMUL", [activation(), constant([[1], [2]], Affine.of([0.1, 0.2]), "int8")], [activation()]),
    ],
    "equal_scales": [
        build(builtin, [activation(A, name="a"), *extra], [activation(B, name="b")])
        for builtin, extra in {
            "CONCATENATION": [activation(A)],
            "PAD": [constant(np.zeros((4, 2)))],
            "MAXIMUM": [activation(A)],
            "MINIMUM": [activation(A)],
            "RESHAPE": [constant([32])],
            "TRANSPOSE": [constant([0, 2, 1, 3])],
            "SLICE": [constant([0]), constant([1])],
            "STRIDED_SLICE": [constant([0]), constant([1]), constant([2])],
            "MAX_POOL_2D": [],
            "AVERAGE_POOL_2D": [],
            "RESIZE_NEAREST_NEIGHBOR": [constant([8, 8])],
            "RESIZE_BILINEAR": [constant([8, 8])],
            "REDUCE_MAX": [constant([1])],
            "RELU6": [],
            "GATHER": [constant([0])],
            "MIRROR_PAD": [constant(np.zeros((4, 2)))],
            "DEPTH_TO_SPACE": [],
            "SPACE_TO_DEPTH": [],
        }.items()
    ]
    + [
        build("CONCATENATION", [activation(A), activation(Affine.of(0.1, 4))], [activation(A)]),
        build("PADV2", [activation(A), constant(np.zeros((4, 2))), constant([0], B, "int8")], [activation(A)]),
        build("SPLIT", [constant(3), activation(A)], [activation(A), activation(B)]),
    ],
    "fixed_output": [
        build("LOGISTIC", [activation()], [activation()]),
        build("TANH", [activation()], [activation(Affine.of(1 / 128, 1))]),
        build("SOFTMAX", [activation()], [activation(Affine.of(1 / 256, 0))]),
        build("LOG_SOFTMAX", [activation()], [activation()]),
        build("L2_NORMALIZATION", [activation()], [activation()]),
        build("LOGISTIC", [activation(SYMMETRIC, "int16")], [activation(SYMMETRIC, "int16")]),
    ],
    "positive_beta": [build("SOFTMAX", [activation()], [activation(Affine.of(1 / 256, -128))], beta=0.0)],
    "symmetric_weights": [
        convolution(weights=constant(np.ones((3, 1, 1, 2)), Affine.of([0.1, 0.2, 0.3], 1, 0), "int8")),
        convolution(weights=constant(np.ones((3, 1, 1, 2)), Affine.of([0.1, 0.2, 0.3], 0, 0), "int16")),
    ],
    "channel_axis": [
        convolution(weights=constant(np.ones((3, 1, 1, 2)), Affine.of([0.1, 0.2], 0, 3), "int8")),
    ],
    "bias_type": [
        convolution(drop_bias=True),
        convolution(bias=constant(np.zeros(3), Affine.of([0.01, 0.02, 0.03]), "int64")),
        convolution(
            source=activation(SYMMETRIC, "int16"),
            bias=constant(np.zeros(3), Affine.of([0.01, 0.02, 0.03])),
            result=activation(SYMMETRIC, "int16", (1, 4, 4, 3)),
        ),
    ],
    "bias_scale": [
        convolution(bias=constant(np.zeros(3), Affine.of([0.01, 0.02, 0.04]))),
        convolution(bias=constant(np.zeros(3), Affine.of([0.01, 0.02, 0.03], 1))),
    ],
    "rank": [build("TRANSPOSE", [activation(shape=(1,) * 6), constant(range(6))], [activation(shape=(1,) * 6)])],
    "int32_indices": [build("RESHAPE", [activation(), constant([32], dtype="int64")], [activation()])],
}  # fmt: skip

SENTENCES = {constraint.__name__: (constraint.__doc__ or "").strip() for constraint in CONSTRAINTS}


def test_every_constraint_has_a_broken_model():
    assert set(BROKEN) == set(SENTENCES)


@pytest.mark.parametrize(
    ("rule", "model"),
    [
        pytest.param(rule, model, id=f"{rule}-{index}-{model.operators[0].builtin}")
        for rule, models in BROKEN.items()
        for index, model in enumerate(models)
    ],
)
def test_a_violation_is_refused(rule, model):
    with pytest.raises(InputError) as raised:
        check_constraints(model)
    assert SENTENCES[rule] in raised.value.what
    assert "layer" in raised.value.what
    assert raised.value.found


def test_a_sound_convolution_passes():
    check_constraints(convolution())
