"""Small models trained on real data (scikit-learn's digits) that need what a plain CNN does not: an encoder, an LSTM,
squeeze-and-excite blocks. Each trains in seconds and is kept for the test run."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import torch
import zoo
from torch import nn


class Attention(nn.Module):
    """Multi-head self-attention over rows."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.each = heads, width // heads
        self.qkv = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = (part(x).reshape(batch, tokens, self.heads, self.each).transpose(1, 2) for part in self.qkv)
        weights = (q @ k.transpose(-2, -1) * self.each**-0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DigitsEncoder(nn.Module):
    """A row of the image is a token."""

    def __init__(self, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(torch.zeros(1, 8, width))
        self.blocks = nn.Sequential(*(Block(width, 4) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, image):
        x = self.embed(image.reshape(image.shape[0], 8, 8)) + self.position
        return self.head(self.norm(self.blocks(x)).mean(1))


class SqueezeExcite(nn.Module):
    """Channel attention with a hard sigmoid, as MobileNetV3 has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x):
        weights = nn.functional.relu(self.down(x.mean((2, 3), keepdim=True)))
        return x * nn.functional.hardsigmoid(self.up(weights))


class DigitsSqueezeExcite(nn.Module):
    """Hard-swish, SiLU and squeeze-and-excite in one small CNN."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.excite = SqueezeExcite(16)
        self.project = nn.Conv2d(16, 24, 1)
        self.head = nn.Linear(24 * 16, 10)

    def forward(self, image):
        x = nn.functional.hardswish(self.stem(image))
        x = self.excite(nn.functional.silu(self.depthwise(x)))
        x = nn.functional.max_pool2d(nn.functional.relu(self.project(x)), 2)
        return self.head(x.flatten(1))


class DigitsLstm(nn.Module):
    """An LSTM over the image's rows."""

    def __init__(self, hidden: int = 24) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 10)

    def forward(self, image):
        steps, _ = self.lstm(image.reshape(image.shape[0], 8, 8))
        return self.head(steps[:, -1])


def _trained(name: str, make: Callable[[], nn.Module], epochs: int) -> nn.Module:
    path = zoo._cache_folder() / f"tflite-{name}.pt"
    torch.manual_seed(0)
    model = make()
    if not path.exists():
        images, labels, _, _ = zoo.digits_data()
        x, y = torch.from_numpy(images), torch.from_numpy(labels).long()
        optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(epochs):
            for part in torch.randperm(len(x)).split(64):
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(x[part]), y[part]).backward()
                optimiser.step()
        aside = path.with_suffix(f".{os.getpid()}")
        torch.save(model.state_dict(), aside)
        aside.replace(path)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


@functools.cache
def digits_encoder() -> nn.Module:
    """Transformer encoder, input `image` (1, 1, 8, 8)."""
    return _trained("encoder", DigitsEncoder, 12)


@functools.cache
def digits_squeeze_excite() -> nn.Module:
    """CNN with squeeze-and-excite."""
    return _trained("squeeze-excite", DigitsSqueezeExcite, 6)


@functools.cache
def digits_lstm() -> nn.Module:
    """LSTM classifier."""
    return _trained("lstm", DigitsLstm, 12)
