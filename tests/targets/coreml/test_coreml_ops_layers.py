"""Convolutions, pools, norms, reductions, products and recurrent layers against torch and numpy in float64."""
# ruff: noqa: E501, PLW0108 - one case a row, read as a table

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from mil_program import Batch, Case, run

from edgedeploy.errors import InputError

RNG = np.random.default_rng(1)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def t(array):
    return torch.from_numpy(np.asarray(array, np.float64))


SIGNAL, IMAGE, VOLUME = normal(2, 4, 9), normal(1, 4, 7, 9), normal(1, 2, 5, 6, 7)
W1, W2, W2G, W3, BIAS = normal(6, 4, 3), normal(6, 4, 3, 3), normal(6, 2, 3, 3), normal(3, 2, 3, 3, 3), normal(6)
T2 = normal(4, 3, 3, 3)
TG = normal(4, 2, 3, 3)


def conv(note, x, weight, expected, **arguments):
    return Case(
        "conv", lambda mb, x: mb.conv(x=x, weight=weight, **arguments), {"x": x}, lambda x: expected(t(x)), note
    )


def same(x, weight, strides, *, lower=False):
    """TensorFlow's rule, written out: total padding so that out = ceil(in / stride)."""
    pads = []
    for size, kernel, stride in zip(x.shape[2:], weight.shape[2:], strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads.append((total - total // 2, total // 2) if lower else (total // 2, total - total // 2))
    flat = [amount for pair in reversed(pads) for amount in pair]
    return F.conv2d(F.pad(x, flat), t(weight), stride=strides)


CONV = [
    conv("1d", SIGNAL, W1, lambda x: F.conv1d(x, t(W1), t(BIAS)), pad_type="valid", bias=BIAS),
    conv("2d", IMAGE, W2, lambda x: F.conv2d(x, t(W2), t(BIAS), 2, 1), bias=BIAS, strides=[2, 2], pad_type="custom", pad=[1] * 4),
    conv("dilated", IMAGE, W2, lambda x: F.conv2d(x, t(W2), dilation=2), pad_type="valid", dilations=[2, 2]),
    conv("grouped", IMAGE, W2G, lambda x: F.conv2d(x, t(W2G), groups=2), pad_type="valid", groups=2),
    conv("asymmetric", IMAGE, W2, lambda x: F.conv2d(F.pad(x, (3, 0, 0, 2)), t(W2)), pad_type="custom", pad=[0, 2, 3, 0]),
    conv("same", IMAGE, W2, lambda x: same(x, W2, [2, 2]), pad_type="same", strides=[2, 2]),
    conv("same-lower", IMAGE, W2, lambda x: same(x, W2, [2, 3], lower=True), pad_type="same_lower", strides=[2, 3]),
    conv("3d", VOLUME, W3, lambda x: F.conv3d(x, t(W3)), pad_type="valid"),
]  # fmt: skip


def transposed(note, expected, weight=T2, **arguments):
    return Case(
        "conv_transpose", lambda mb, x: mb.conv_transpose(x=x, weight=weight, **arguments), {"x": IMAGE},
        lambda x: expected(t(x)), note,
    )  # fmt: skip


TRANSPOSED = [
    transposed("valid", lambda x: F.conv_transpose2d(x, t(T2), t(BIAS[:3]), 2), strides=[2, 2], bias=BIAS[:3]),
    transposed("custom", lambda x: F.conv_transpose2d(x, t(T2), stride=2, padding=1), strides=[2, 2], pad_type="custom", pad=[1] * 4),
    transposed(
        "output-shape", lambda x: F.conv_transpose2d(x, t(T2), stride=2, padding=1, output_padding=1),
        strides=[2, 2], pad_type="custom", pad=[1] * 4, output_shape=[1, 3, 14, 18],
    ),
    transposed("grouped", lambda x: F.conv_transpose2d(x, t(TG), groups=2, dilation=2), weight=TG, groups=2, dilations=[2, 2]),
    transposed("same", lambda x: F.conv_transpose2d(x, t(T2), stride=2)[:, :, :14, :18], strides=[2, 2], pad_type="same"),
]  # fmt: skip


def pool(op, note, x, expected, **arguments):
    return Case(op, lambda mb, x: getattr(mb, op)(x=x, **arguments), {"x": x}, lambda x: expected(t(x)), note)


POOLS = [
    pool("max_pool", "2d", IMAGE, lambda x: F.max_pool2d(x, 3, 2, 1), kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1] * 4),
    pool("max_pool", "ceil", IMAGE, lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True), kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid", ceil_mode=True),
    pool("max_pool", "1d", SIGNAL, lambda x: F.max_pool1d(x, 3, 1), kernel_sizes=[3], strides=[1], pad_type="valid"),
    pool("avg_pool", "2d", IMAGE, lambda x: F.avg_pool2d(x, 3, 2, 1), kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1] * 4),
    pool("avg_pool", "exclude", IMAGE, lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
         kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1] * 4, exclude_padding_from_average=True),
    pool("avg_pool", "ceil", IMAGE, lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True), kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid", ceil_mode=True),
    pool("avg_pool", "ceil-padded", IMAGE, lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1] * 4, ceil_mode=True),
    pool("avg_pool", "3d", VOLUME, lambda x: F.avg_pool3d(x, 2), kernel_sizes=[2, 2, 2], strides=[2, 2, 2], pad_type="valid"),
    pool("l2_pool", "2d", IMAGE, lambda x: F.lp_pool2d(x, 2.0, 2, 2), kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid"),
]  # fmt: skip

MEAN, VARIANCE, GAMMA, BETA = normal(4), RNG.uniform(0.5, 2, 4).astype(np.float32), normal(4), normal(4)
ROWS = normal(2, 3, 5)
G5, B5 = normal(5), normal(5)
NORMS = [
    Case("batch_norm", lambda mb, x: mb.batch_norm(x=x, mean=MEAN, variance=VARIANCE, gamma=GAMMA, beta=BETA, epsilon=1e-3),
         {"x": IMAGE}, lambda x: F.batch_norm(t(x), t(MEAN), t(VARIANCE), t(GAMMA), t(BETA), eps=1e-3)),
    Case("batch_norm", lambda mb, x: mb.batch_norm(x=x, mean=MEAN, variance=VARIANCE), {"x": SIGNAL},
         lambda x: F.batch_norm(t(x), t(MEAN), t(VARIANCE)), "plain-1d"),
    Case("instance_norm", lambda mb, x: mb.instance_norm(x=x, gamma=GAMMA, beta=BETA, epsilon=1e-3), {"x": IMAGE},
         lambda x: F.instance_norm(t(x), weight=t(GAMMA), bias=t(BETA), eps=1e-3)),
    Case("layer_norm", lambda mb, x: mb.layer_norm(x=x, axes=[-1], gamma=G5, beta=B5, epsilon=1e-3), {"x": ROWS},
         lambda x: F.layer_norm(t(x), (5,), t(G5), t(B5), 1e-3)),
    Case("layer_norm", lambda mb, x: mb.layer_norm(x=x, axes=[1, 2]), {"x": ROWS},
         lambda x: F.layer_norm(t(x), (3, 5)), "two-axes"),
    Case("l2_norm", lambda mb, x: mb.l2_norm(x=x, epsilon=1e-3), {"x": IMAGE},
         lambda x: x / np.sqrt((x**2).sum((1, 2, 3), keepdims=True) + 1e-3)),
    Case("local_response_norm", lambda mb, x: mb.local_response_norm(x=x, size=3, alpha=0.1, beta=0.6, k=1.5), {"x": IMAGE},
         lambda x: F.local_response_norm(t(x), 3, 0.1, 0.6, 1.5)),
]  # fmt: skip

POSITIVE = np.abs(ROWS) + 0.1


def reduction(op, x, expected, note="", **arguments):
    return Case(op, lambda mb, x: getattr(mb, op)(x=x, **arguments), {"x": x}, lambda x: expected(x), note)


TIES = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 0.0]], np.float32)
REDUCTIONS = [
    reduction("reduce_max", ROWS, lambda x: x.max((0, 2)), axes=[0, 2]),
    reduction("reduce_min", ROWS, lambda x: x.min(1, keepdims=True), axes=[1], keep_dims=True),
    reduction("reduce_mean", ROWS, lambda x: x.mean(-1), axes=[-1]),
    reduction("reduce_mean", ROWS, lambda x: x.mean(), "all"),
    reduction("reduce_sum", ROWS, lambda x: x.sum((0, 1)), axes=[0, 1]),
    reduction("reduce_sum", np.array([[2**30, 1], [5, -7]], np.int32), lambda x: x.sum(1).astype(np.int32), "int32", axes=[1]),
    reduction("reduce_prod", ROWS, lambda x: x.prod((0, 2)), axes=[0, 2]),
    reduction("reduce_sum_square", ROWS, lambda x: (x**2).sum(2), axes=[2]),
    reduction("reduce_l1_norm", ROWS, lambda x: np.abs(x).sum(1), axes=[1]),
    reduction("reduce_l2_norm", ROWS, lambda x: np.sqrt((x**2).sum((1, 2))), axes=[1, 2]),
    reduction("reduce_log_sum", POSITIVE, lambda x: np.log(x.sum(1)), axes=[1]),
    reduction("reduce_log_sum_exp", ROWS * 50, lambda x: np.logaddexp.reduce(x, 1), axes=[1]),
    reduction("reduce_argmax", TIES, lambda x: x.argmax(1).astype(np.int32), axis=1),
    reduction("reduce_argmin", TIES, lambda x: x.argmin(1)[:, None].astype(np.int32), axis=1, keep_dims=True),
]  # fmt: skip

A, B, WEIGHT, OUT = normal(2, 3, 4), normal(2, 4, 5), normal(6, 4), normal(6)
Q, K, V = normal(1, 2, 3, 4), normal(1, 2, 5, 4), normal(1, 2, 5, 6)
MASK = np.array([[True, True, False, True, True]] * 3)
PRODUCTS = [
    Case("linear", lambda mb, x: mb.linear(x=x, weight=WEIGHT, bias=OUT), {"x": A}, lambda x: x @ WEIGHT.T.astype(float) + OUT),
    Case("matmul", lambda mb, x, y: mb.matmul(x=x, y=y), {"x": A, "y": B}, lambda x, y: x @ y),
    Case("matmul", lambda mb, x, y: mb.matmul(x=x, y=y, transpose_x=True, transpose_y=True),
         {"x": normal(2, 4, 3), "y": normal(5, 4)}, lambda x, y: x.swapaxes(-1, -2) @ y.T, "transposed"),
    Case("einsum", lambda mb, x, y: mb.einsum(values=(x, y), equation="nchw,nwhu->nchu"),
         {"x": normal(1, 2, 3, 4), "y": normal(1, 4, 3, 5)}, lambda x, y: np.einsum("nchw,nwhu->nchu", x, y)),
    Case("scaled_dot_product_attention", lambda mb, q, k, v: mb.scaled_dot_product_attention(query=q, key=k, value=v),
         {"q": Q, "k": K, "v": V}, lambda q, k, v: F.scaled_dot_product_attention(t(q), t(k), t(v)), target="iOS18"),
    Case("scaled_dot_product_attention",
         lambda mb, q, k, v, m: mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=m),
         {"q": Q, "k": K, "v": V, "m": MASK},
         lambda q, k, v, m: F.scaled_dot_product_attention(t(q), t(k), t(v), torch.from_numpy(m)), "masked", target="iOS18"),
]  # fmt: skip

# ---- recurrent layers: our gate order i, f, o, z (lstm) and r, o, z (gru) from torch's i, f, g, o and r, z, n
STEPS, HIDDEN, WIDTH = 4, 3, 5
LSTM = torch.nn.LSTM(WIDTH, HIDDEN, bidirectional=True).double()
GRU = torch.nn.GRU(WIDTH, HIDDEN).double()
RNN = torch.nn.RNN(WIDTH, HIDDEN).double()
SEQUENCE, H0, C0 = normal(STEPS, 2, WIDTH), normal(2, 2 * HIDDEN), normal(2, 2 * HIDDEN)


def reorder(tensor, order):
    parts = tensor.detach().reshape(len(order), HIDDEN, *tensor.shape[1:])
    return parts[order].reshape(tensor.shape).numpy().astype(np.float32)


def lstm_weights(suffix):
    order = [0, 1, 3, 2]
    get = lambda kind: getattr(LSTM, f"{kind}_l0{suffix}")  # noqa: E731
    return [
        reorder(get("weight_ih"), order),
        reorder(get("weight_hh"), order),
        reorder(get("bias_ih") + get("bias_hh"), order),
    ]


def lstm_expected(x, h, c):
    split = lambda state: t(state).reshape(2, 2, HIDDEN).transpose(0, 1)  # noqa: E731
    with torch.no_grad():
        out, (last_h, last_c) = LSTM(t(x), (split(h), split(c)))
    join = lambda state: state.transpose(0, 1).reshape(2, 2 * HIDDEN)  # noqa: E731
    return out.numpy(), join(last_h).numpy(), join(last_c).numpy()


def lstm_program(mb, x, h, c):
    (ih, hh, bias), (ih_b, hh_b, bias_b) = lstm_weights(""), lstm_weights("_reverse")
    return mb.lstm(
        x=x, initial_h=h, initial_c=c, weight_ih=ih, weight_hh=hh, bias=bias, weight_ih_back=ih_b, weight_hh_back=hh_b,
        bias_back=bias_b, direction="bidirectional", output_sequence=True,
    )  # fmt: skip


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def peephole_lstm(x, h, c):
    """Hochreiter and Schmidhuber with peepholes (Gers), written out; the cell gate is clipped."""
    ih, hh, bias = (w.astype(np.float64) for w in lstm_weights(""))
    for step in x[::-1]:
        i, f, o, z = np.split(step @ ih.T + h @ hh.T + bias, 4, -1)
        i, f = sigmoid(i + 0.1 * c), sigmoid(f + 0.2 * c)
        c = f * c + i * np.clip(np.tanh(z), -0.5, 0.5)
        h = sigmoid(o + 0.3 * c) * np.tanh(c)
    return h[None], h, c


PEEPHOLE = np.repeat([0.1, 0.2, 0.3], HIDDEN).astype(np.float32)


def gru_weights():
    order = [0, 2, 1]
    return [reorder(getattr(GRU, f"{kind}_l0"), order) for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


def gru_before(x, h):
    """Cho et al.: the reset gate is applied to h before the product."""
    ih, hh, _, bias = (w.astype(np.float64) for w in gru_weights())
    w_r, w_o, w_z = np.split(hh, 3)
    b_r, b_o, b_z = np.split(bias, 3)
    for step in x:
        x_r, x_o, x_z = np.split(step @ ih.T, 3, -1)
        r, z = sigmoid(x_r + h @ w_r.T + b_r), sigmoid(x_z + h @ w_z.T + b_z)
        h = (1 - z) * np.tanh(x_o + (r * h) @ w_o.T + b_o) + z * h
    return h[None], h


def gru_torch(x, h):
    with torch.no_grad():
        out, last = GRU(t(x), t(h)[None])
    return out.numpy(), last[0].numpy()


def rnn_torch(x, h):
    with torch.no_grad():
        out, last = RNN(t(x).flip(0), t(h)[None])
    return out.flip(0).numpy(), last[0].numpy()


HALF_H, HALF_C = H0[:, :HIDDEN].copy(), C0[:, :HIDDEN].copy()
RECURRENT = [
    Case("lstm", lstm_program, {"x": SEQUENCE, "h": H0, "c": C0}, lstm_expected, "bidirectional"),
    Case(
        "lstm",
        lambda mb, x, h, c: mb.lstm(
            x=x, initial_h=h, initial_c=c, weight_ih=lstm_weights("")[0], weight_hh=lstm_weights("")[1],
            bias=lstm_weights("")[2], direction="reverse", peephole=PEEPHOLE, clip=0.5,
        ),
        {"x": SEQUENCE, "h": HALF_H, "c": HALF_C}, peephole_lstm, "reverse-peephole",
    ),
    Case(
        "gru",
        lambda mb, x, h: mb.gru(
            x=x, initial_h=h, weight_ih=gru_weights()[0], weight_hh=gru_weights()[1], input_bias=gru_weights()[2],
            bias=gru_weights()[3], reset_after=True, output_sequence=True,
        ),
        {"x": SEQUENCE, "h": HALF_H}, gru_torch, "reset-after", target="iOS18",
    ),
    Case(
        "gru",
        lambda mb, x, h: mb.gru(
            x=x, initial_h=h, weight_ih=gru_weights()[0], weight_hh=gru_weights()[1], bias=gru_weights()[3]
        ),
        {"x": SEQUENCE, "h": HALF_H}, gru_before,
    ),
    Case(
        "rnn",
        lambda mb, x, h: mb.rnn(
            x=x, initial_h=h, weight_ih=RNN.weight_ih_l0.detach().numpy().astype(np.float32),
            weight_hh=RNN.weight_hh_l0.detach().numpy().astype(np.float32),
            bias=(RNN.bias_ih_l0 + RNN.bias_hh_l0).detach().numpy().astype(np.float32),
            direction="reverse", output_sequence=True,
        ),
        {"x": SEQUENCE, "h": HALF_H}, rnn_torch, "reverse",
    ),
]  # fmt: skip

CASES = CONV + TRANSPOSED + POOLS + NORMS + REDUCTIONS + PRODUCTS + RECURRENT
FULL_BATCH = Batch(CASES)
NO_HALF = {"reduce_argmax", "reduce_argmin", "reduce_log_sum_exp", "lstm-reverse-peephole"}
HALF_CASES = [dataclasses.replace(case, half=True, half_tolerance=8e-3) for case in CASES if case.id not in NO_HALF]
HALF_BATCH = Batch(HALF_CASES, half=True)
HALF_CASES = [case for case in HALF_CASES if case.in_half]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_float32(case):
    FULL_BATCH.check(case)


@pytest.mark.parametrize("case", HALF_CASES, ids=lambda case: case.id)
def test_float16(case):
    HALF_BATCH.check(case)


def test_recurrent_state_is_rounded_between_steps():
    # A recurrence that adds 2^-12 to a state near 1 stays where it is in float16 and moves in float32.
    weights = {"weight_ih": np.ones((1, 1), np.float32), "weight_hh": np.ones((1, 1), np.float32)}
    inputs = {"x": np.full((64, 1, 1), 2.0**-12, np.float32), "h": np.ones((1, 1), np.float32)}

    def build(mb, x, h):
        return mb.rnn(x=x, initial_h=h, activation="linear", **weights)[1]

    assert float(run(build, inputs, half=True)[0][0][0, 0]) == 1.0
    assert float(run(build, inputs)[0][0][0, 0]) == pytest.approx(1 + 64 * 2.0**-12)


def test_an_operand_of_the_wrong_size_is_named():
    with pytest.raises(InputError, match="does not fit"):
        executor = run(lambda mb, x: mb.relu(x=x), {"x": ROWS})[1]
        executor.run({"x": ROWS[:1]})
