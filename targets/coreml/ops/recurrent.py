"""Recurrent layers; what is carried from step to step is rounded to the declared type, as it would be stored."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgedeploy.targets.coreml.registry import Call, Results, op

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "linear": lambda x: x,
    "hard_sigmoid": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "sigmoid_hard": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "scaled_tanh": lambda x: 1.7159 * torch.tanh(2.0 / 3.0 * x),
}


def _activation(call: Call, name: str, default: str) -> Callable[[Tensor], Tensor]:
    text = call.text(name, default).lower()
    if text not in _ACTIVATIONS:
        raise call.wrong(f"activation {text!r}")
    return _ACTIVATIONS[text]


def _bias(call: Call, name: str, size: int) -> Tensor:
    bias = call.optional(name)
    return torch.zeros(size) if bias is None else bias


def _steps(call: Call, length: int, *, backward: bool) -> range:
    return range(length - 1, -1, -1) if backward else range(length)


def _sequence(call: Call, steps: list[Tensor], *, backward: bool) -> Tensor:
    if not call.flag("output_sequence"):
        return steps[-1].unsqueeze(0)
    return torch.stack(steps[::-1] if backward else steps)


def _lstm_direction(call: Call, suffix: str, h: Tensor, c: Tensor, *, backward: bool) -> tuple[Tensor, Tensor, Tensor]:
    x = call.tensor("x")
    weight_hh = call.tensor(f"weight_hh{suffix}")
    hidden = weight_hh.shape[1]
    projected = x @ call.tensor(f"weight_ih{suffix}").T + _bias(call, f"bias{suffix}", 4 * hidden)
    peephole = _bias(call, f"peephole{suffix}", 3 * hidden).reshape(3, hidden)
    gate = _activation(call, "recurrent_activation", "sigmoid")
    cell = _activation(call, "cell_activation", "tanh")
    out = _activation(call, "activation", "tanh")
    limit = call.number("clip", torch.inf)
    outputs = []
    for step in _steps(call, len(x), backward=backward):
        i, f, o, z = (projected[step] + h @ weight_hh.T).chunk(4, -1)
        i, f = gate(i + peephole[0] * c), gate(f + peephole[1] * c)
        c = call.round(f * c + i * cell(z).clamp(-limit, limit))
        h = call.round(gate(o + peephole[2] * c) * out(c))
        outputs.append(h)
    return _sequence(call, outputs, backward=backward), h, c


@op("lstm")
def lstm(call: Call) -> Results:
    """X (s, b, I) → sequence, last h, last c; gate order i, f, o, z; outputs stay aligned with their inputs."""
    h, c = call.tensor("initial_h"), call.tensor("initial_c")
    direction = call.text("direction", "forward")
    if direction != "bidirectional":
        return _lstm_direction(call, "", h, c, backward=direction == "reverse")
    (h_forward, h_back), (c_forward, c_back) = h.chunk(2, -1), c.chunk(2, -1)
    forward = _lstm_direction(call, "", h_forward, c_forward, backward=False)
    back = _lstm_direction(call, "_back", h_back, c_back, backward=True)
    return tuple(torch.cat(pair, -1) for pair in zip(forward, back, strict=True))


@op("gru")
def gru(call: Call) -> Results:
    """X (s, b, I) → sequence, last h; gate order r, o, z.

    Without ``reset_after`` the reset gate multiplies h before its matrix product.
    """
    x, h = call.tensor("x"), call.tensor("initial_h")
    weight_hh = call.tensor("weight_hh")
    hidden = weight_hh.shape[1]
    backward = call.text("direction", "forward") == "reverse"
    projected = x @ call.tensor("weight_ih").T + _bias(call, "input_bias", 3 * hidden)
    bias_r, bias_o, bias_z = _bias(call, "bias", 3 * hidden).chunk(3)
    weight_r, weight_o, weight_z = weight_hh.chunk(3)
    gate = _activation(call, "recurrent_activation", "sigmoid")
    out = _activation(call, "activation", "tanh")
    after = call.flag("reset_after")
    outputs = []
    for step in _steps(call, len(x), backward=backward):
        x_r, x_o, x_z = projected[step].chunk(3, -1)
        r, z = gate(x_r + h @ weight_r.T + bias_r), gate(x_z + h @ weight_z.T + bias_z)
        recurrent = r * (h @ weight_o.T + bias_o) if after else (r * h) @ weight_o.T + bias_o
        h = call.round((1 - z) * out(x_o + recurrent) + z * h)
        outputs.append(h)
    return _sequence(call, outputs, backward=backward), h


@op("rnn")
def rnn(call: Call) -> Results:
    """X (s, b, I) → sequence, last h."""
    x, h = call.tensor("x"), call.tensor("initial_h")
    weight_hh = call.tensor("weight_hh")
    backward = call.text("direction", "forward") == "reverse"
    projected = x @ call.tensor("weight_ih").T + _bias(call, "bias", len(weight_hh))
    activation = _activation(call, "activation", "tanh")
    outputs = []
    for step in _steps(call, len(x), backward=backward):
        h = call.round(activation(projected[step] + h @ weight_hh.T))
        outputs.append(h)
    return _sequence(call, outputs, backward=backward), h
