"""Element-wise ops and activations of the Core ML executor against numpy and scipy in float64."""
# ruff: noqa: E501, PLW0108 - one case a row, read as a table

import dataclasses

import numpy as np
import pytest
import scipy.special
from mil_program import Batch, Case, run

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4)).astype(np.float32) * 2
UNIT = RNG.uniform(-0.95, 0.95, (2, 3)).astype(np.float32)
POSITIVE = RNG.uniform(0.1, 5, (2, 3)).astype(np.float32)
EDGE = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 100.0, -100.0], np.float32)
IMAGE = RNG.normal(size=(1, 3, 4, 4)).astype(np.float32)
ALPHA = np.array([0.1, 0.5, 2.0], np.float32)
BETA = np.array([1.0, 0.3, 1.5], np.float32)
INTS = np.array([[7, -7, 3], [-3, 0, 5]], np.int32)
DIVISORS = np.array([[2, 2, -2], [2, 3, -5]], np.int32)


def unary(op, x, expected, **extra):
    return Case(op, lambda mb, x: getattr(mb, op)(x=x), {"x": x}, lambda x: expected(x), **extra)


def binary(op, x, y, expected, note="", **extra):
    return Case(
        op, lambda mb, x, y: getattr(mb, op)(x=x, y=y), {"x": x, "y": y}, lambda x, y: expected(x, y), note, **extra
    )


def scaled(op, x, expected, note="", **constants):
    return Case(op, lambda mb, x: getattr(mb, op)(x=x, **constants), {"x": x}, lambda x: expected(x, **constants), note)


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


UNARY = [
    unary("abs", EDGE, np.abs),
    unary("acos", UNIT, np.arccos),
    unary("asin", UNIT, np.arcsin),
    unary("atan", X, np.arctan),
    unary("atanh", UNIT, np.arctanh),
    unary("ceil", EDGE, np.ceil),
    unary("cos", X, np.cos),
    unary("cosh", X, np.cosh),
    unary("erf", X, scipy.special.erf),
    unary("exp", X, np.exp),
    unary("exp2", X, np.exp2),
    unary("floor", EDGE, np.floor),
    unary("round", EDGE, np.rint),
    unary("sign", EDGE, np.sign),
    unary("sin", X, np.sin),
    unary("sinh", X, np.sinh),
    unary("sqrt", POSITIVE, np.sqrt),
    unary("square", X, np.square),
    unary("tan", UNIT, np.tan),
    unary("tanh", EDGE, np.tanh),
    unary("logical_not", np.array([True, False]), np.logical_not),
    scaled("log", POSITIVE, lambda x, epsilon: np.log(x + epsilon), epsilon=0.5),
    scaled("rsqrt", POSITIVE, lambda x, epsilon: 1 / np.sqrt(x + epsilon), epsilon=0.25),
    scaled("inverse", POSITIVE, lambda x, epsilon: 1 / (x + epsilon), epsilon=0.125),
    scaled("clip", EDGE, lambda x, alpha, beta: np.clip(x, alpha, beta), alpha=-1.0, beta=2.0),
    scaled("threshold", EDGE, lambda x, alpha: np.maximum(x, alpha), alpha=0.25),
    scaled("cast", EDGE, lambda x, dtype: np.trunc(x).astype(np.int32), "to-int", dtype="int32"),
    scaled("cast", EDGE, lambda x, dtype: x != 0, "to-bool", dtype="bool"),
    Case("cast", lambda mb, x: mb.cast(x=x, dtype="fp16"), {"x": X}, lambda x: x.astype(np.float16), "to-half"),
    Case("identity", lambda mb, x: mb.identity(x=x), {"x": X}, lambda x: x),
]

BINARY = [
    binary("add", X, X[:1], np.add, "broadcast"),
    binary("sub", X, X[:, :1], np.subtract),
    binary("mul", X, X[..., :1], np.multiply),
    binary("real_div", POSITIVE, POSITIVE[::-1].copy(), np.divide),
    binary("real_div", INTS, DIVISORS, lambda x, y: np.trunc(x / y).astype(np.int32), "integers"),
    binary("pow", POSITIVE, UNIT, np.power),
    binary("mod", INTS, DIVISORS, np.mod, "integers"),
    binary("mod", X, np.full((1,), 0.75, np.float32), np.mod, "floats", tolerance=1e-4),
    binary("floor_div", INTS, DIVISORS, np.floor_divide, "integers"),
    binary("floor_div", X, np.full((1,), 0.75, np.float32), np.floor_divide, "floats"),
    binary("maximum", X, X[:, ::-1].copy(), np.maximum),
    binary("minimum", X, X[:, ::-1].copy(), np.minimum),
    binary("equal", INTS, INTS[::-1].copy(), np.equal),
    binary("not_equal", INTS, INTS[::-1].copy(), np.not_equal),
    binary("greater", X, X[:1], np.greater),
    binary("greater_equal", X, X[:1], np.greater_equal),
    binary("less", X, X[:1], np.less),
    binary("less_equal", X, X[:1], np.less_equal),
    binary("logical_and", np.array([True, True, False, False]), np.array([True, False, True, False]), np.logical_and),
    binary("logical_or", np.array([True, True, False, False]), np.array([True, False, True, False]), np.logical_or),
    binary("logical_xor", np.array([True, True, False, False]), np.array([True, False, True, False]), np.logical_xor),
]

ACTIVATIONS = [
    unary("relu", EDGE, lambda x: np.maximum(x, 0)),
    unary("relu6", EDGE, lambda x: np.clip(x, 0, 6)),
    unary("sigmoid", EDGE, scipy.special.expit),
    unary("silu", X, lambda x: x * scipy.special.expit(x)),
    unary("softplus", EDGE, lambda x: np.logaddexp(0, x)),
    unary("softsign", X, lambda x: x / (1 + np.abs(x))),
    scaled("gelu", X, lambda x, mode: 0.5 * x * (1 + scipy.special.erf(x / np.sqrt(2))), mode="EXACT"),
    scaled("gelu", X, lambda x, mode: gelu_tanh(x), "tanh", mode="TANH_APPROXIMATION"),
    scaled("gelu", X, lambda x, mode: x * scipy.special.expit(1.702 * x), "sigmoid", mode="SIGMOID_APPROXIMATION"),
    scaled("leaky_relu", EDGE, lambda x, alpha: np.where(x >= 0, x, alpha * x), alpha=0.2),
    scaled("elu", X, lambda x, alpha: np.where(x >= 0, x, alpha * np.expm1(x)), alpha=0.7),
    scaled("thresholded_relu", EDGE, lambda x, alpha: np.where(x >= alpha, x, 0), alpha=0.5),
    scaled(
        "clamped_relu", EDGE, lambda x, alpha, beta: np.minimum(beta, np.where(x >= 0, x, alpha * x)), alpha=0.5, beta=1.5
    ),
    scaled("linear_activation", X, lambda x, alpha, beta: alpha * x + beta, alpha=1.5, beta=-0.5),
    scaled("scaled_tanh", X, lambda x, alpha, beta: alpha * np.tanh(beta * x), alpha=1.2, beta=0.4),
    scaled("sigmoid_hard", EDGE, lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1), alpha=0.3, beta=0.4),
    Case(
        "prelu", lambda mb, x: mb.prelu(x=x, alpha=ALPHA), {"x": IMAGE},
        lambda x: np.where(x >= 0, x, ALPHA.reshape(3, 1, 1) * x),
    ),
    Case(
        "softplus_parametric", lambda mb, x: mb.softplus_parametric(x=x, alpha=ALPHA, beta=BETA), {"x": IMAGE},
        lambda x: ALPHA.reshape(3, 1, 1) * np.logaddexp(0, BETA.reshape(3, 1, 1) * x),
    ),
    scaled("softmax", X, lambda x, axis: scipy.special.softmax(x, axis), axis=-1),
    scaled("softmax", X, lambda x, axis: scipy.special.softmax(x, axis), "axis1", axis=1),
]  # fmt: skip

HALF = frozenset(case.id for case in UNARY + ACTIVATIONS) - {
    "logical_not",
    "cast-to-int",
    "cast-to-bool",
    "cast-to-half",
}
CASES = UNARY + BINARY + ACTIVATIONS
FULL_BATCH = Batch(CASES)
HALF_CASES = [
    dataclasses.replace(case, half=True)
    for case in CASES
    if case.id in HALF | {"add-broadcast", "sub", "mul", "real_div", "pow", "maximum", "minimum"}
]
HALF_BATCH = Batch(HALF_CASES, half=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float32(case):
    FULL_BATCH.check(case)


@pytest.mark.parametrize("case", HALF_CASES, ids=lambda case: case.id)
def test_float16(case):
    HALF_BATCH.check(case)


def test_every_result_is_rounded_to_float16():
    # 1 + 2^-11 is a tie that float16 rounds to 1; without rounding after the first op the difference survives.
    x = np.array([2.0**-11], np.float32)
    results, _ = run(lambda mb, x: mb.sub(x=mb.add(x=x, y=1.0), y=1.0), {"x": x}, half=True)
    assert float(results[0][0]) == 0.0


def test_float16_overflows_to_infinity():
    results, _ = run(lambda mb, x: mb.mul(x=x, y=2.0), {"x": np.array([60000.0], np.float32)}, half=True)
    assert np.isinf(results[0][0])
