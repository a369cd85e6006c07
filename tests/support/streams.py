"""Small nets with state, as streams have them: recorded frames with the state that the net had before each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch


class Cell(torch.nn.Module):
    """A recurrent cell in plain layers: frame (1, 8), hidden (1, 12) → level (1, 3), hidden (1, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.frame, self.kept, self.head = torch.nn.Linear(8, 12), torch.nn.Linear(12, 12), torch.nn.Linear(12, 3)

    def forward(self, frame: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.tanh(self.frame(frame) + self.kept(hidden))
        return self.head(hidden), hidden


class Packed(torch.nn.Module):
    """An LSTM whose h (within 1) and c (up to hundreds: the forget gate is open) are packed into one state."""

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(8, hidden, batch_first=True)
        self.head = torch.nn.Linear(hidden, 8)
        with torch.no_grad():
            self.lstm.bias_ih_l0[hidden : 2 * hidden] = 5.0
            self.lstm.weight_ih_l0 *= 3

    def forward(self, frame: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, (h, c) = self.lstm(frame, (state[:, 0:1], state[:, 1:2]))
        return torch.sigmoid(self.head(y)), torch.stack([h[0], c[0]], 1)


class Recurrent(torch.nn.Module):
    """A stacked LSTM or GRU between linear layers, its states (layers, 1, 10) as inputs and outputs."""

    def __init__(self, kind: str, layers: int) -> None:
        super().__init__()
        self.front = torch.nn.Linear(8, 10)
        self.core = getattr(torch.nn, kind)(10, 10, layers, batch_first=True)
        self.head = torch.nn.Linear(10, 4)
        self.pair = kind == "LSTM"

    def forward(self, frame: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, state = self.core(torch.relu(self.front(frame)), state if self.pair else state[0])
        return self.head(y[:, -1]), *(state if self.pair else (state,))


class RecurrentLstm(Recurrent):
    """`Recurrent` with named states: frame (1, 2, 8), h and c."""

    def forward(self, frame: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return super().forward(frame, h, c)


class RecurrentGru(Recurrent):
    """`Recurrent` with a named state: frame (1, 2, 8), h."""

    def forward(self, frame: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return super().forward(frame, h)


def make(kind: str, layers: int = 1) -> tuple[torch.nn.Module, dict[str, tuple[int, ...]]]:
    """A net in eval mode with fixed random weights, and its input shapes, the frame first."""
    torch.manual_seed(0)
    state = (layers, 1, 10)
    nets = {
        "cell": (Cell, {"frame": (1, 8), "hidden": (1, 12)}),
        "packed": (Packed, {"frame": (1, 1, 8), "state": (1, 2, 16)}),
        "lstm": (lambda: RecurrentLstm("LSTM", layers), {"frame": (1, 2, 8), "h": state, "c": state}),
        "gru": (lambda: RecurrentGru("GRU", layers), {"frame": (1, 2, 8), "h": state}),
    }
    build, shapes = nets[kind]
    return build().eval(), shapes


def recorded(net: torch.nn.Module, shapes: dict[str, tuple[int, ...]], steps: int = 460) -> dict[str, np.ndarray]:
    """A slow signal, and the states that the net had before each frame: (steps, *input shape) by input name."""
    noise = np.random.default_rng(0).normal(size=(steps, *next(iter(shapes.values()))))
    frames = np.empty_like(noise)
    level = np.zeros_like(noise[0])
    for step, fresh in enumerate(noise):
        level = 0.8 * level + 0.6 * fresh
        frames[step] = level + 0.3
    names = list(shapes)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    state = [torch.zeros(shapes[name]) for name in names[1:]]
    for frame in frames.astype(np.float32):
        for name, value in zip(names, [torch.tensor(frame), *state], strict=True):
            rows[name].append(value.numpy().copy())
        with torch.no_grad():
            _, *state = net(torch.tensor(frame), *state)
    return {name: np.stack(values) for name, values in rows.items()}


def write(folder: Path, kind: str, layers: int = 1) -> Path:
    """``model.pt2`` with recorded data beside it: 100 frames to calibrate on, 60 after them to evaluate on."""
    net, shapes = make(kind, layers)
    path = folder / "model.pt2"
    torch.export.save(torch.export.export(net, tuple(torch.zeros(shape) for shape in shapes.values())), path)
    data = recorded(net, shapes)
    np.savez(folder / "model.calib.npz", **{name: value[:400:4] for name, value in data.items()})
    np.savez(folder / "model.eval.npz", **{name: value[400:] for name, value in data.items()})
    (folder / "deploy.toml").write_text('[metric]\nkind = "regression"\n')
    return path
