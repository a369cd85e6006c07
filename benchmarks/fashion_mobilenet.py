"""A MobileNetV2-class network trained on Fashion-MNIST: what `quantization_repair.py` measures on.

Data: the Debian package ``dataset-fashion-mnist`` (60,000 training and 10,000 test images, Xiao et al. 2017).
Training takes some ten minutes on one core; the result is kept in the temporary folder.
"""

from __future__ import annotations

import gzip
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

FOLDERS = (Path("/usr/share/datasets/fashion-mnist"), Path("/usr/share/dataset-fashion-mnist"))
NAMES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
#: (expansion, channels, repeats, stride), a third of MobileNetV2's table at a third of its width.
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 40, 1, 2), (6, 64, 1, 2))


class InvertedResidual(nn.Module):
    """Expand, depthwise, project (Sandler et al. 2018)."""

    def __init__(self, before: int, after: int, expansion: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1 and before == after
        hidden = before * expansion
        layers = [] if expansion == 1 else conv(before, hidden, 1)
        layers += conv(hidden, hidden, 3, stride, groups=hidden)
        layers += conv(hidden, after, 1, activation=False)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        y = self.layers(x)
        return x + y if self.residual else y


class FashionMobileNet(nn.Module):
    """Input (n, 1, 28, 28) in [-1, 1], ten classes."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = conv(1, 16, 3, 2)
        channels = 16
        for expansion, after, repeats, stride in BLOCKS:
            for place in range(repeats):
                layers.append(InvertedResidual(channels, after, expansion, stride if place == 0 else 1))
                channels = after
        layers += conv(channels, 192, 1)
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(192, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        return self.classifier(self.features(x).mean((2, 3)))


def conv(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1, activation: bool = True) -> list:
    layers = [
        nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
    ]
    return [*layers, nn.ReLU6()] if activation else layers


def data() -> dict[str, np.ndarray] | None:
    """Images (n, 1, 28, 28) float32 in [-1, 1] and labels; ``None`` where the package is not installed."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    if folder is None:
        return None
    arrays = {}
    for name in NAMES:
        path = next(folder.glob(f"{name}*"))
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if "images" in name:
            arrays[name[:5].strip("-")] = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 1, 28, 28)
        else:
            arrays[name[:5].strip("-") + "_labels"] = np.frombuffer(raw, np.uint8, offset=8).astype(np.int64)
    return {
        name: value if "labels" in name else (value.astype(np.float32) / 127.5 - 1) for name, value in arrays.items()
    }


def train(epochs: int = 1) -> nn.Module:
    """Train, or load what an earlier run trained."""
    folder = Path(tempfile.gettempdir()) / f"edgedeploy-benchmarks-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"fashion-mobilenet-{epochs}.pt"
    model = FashionMobileNet()
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    arrays = data()
    torch.manual_seed(0)
    images, labels = torch.from_numpy(arrays["train"]), torch.from_numpy(arrays["train_labels"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
    batch = 128
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, steps)
    start = time.time()
    for epoch in range(epochs):
        order = torch.randperm(len(images))
        for place in range(0, len(images) - batch + 1, batch):
            chosen = order[place : place + batch]
            x = images[chosen]
            x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
            loss = nn.functional.cross_entropy(model(x), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if place % (40 * batch) == 0:
                print(place, round(loss.item(), 3), time.time() - start, flush=True)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {time.time() - start:.0f} s", flush=True)
    aside = path.with_suffix(f".{os.getpid()}")
    torch.save(model.state_dict(), aside)
    aside.replace(path)
    return model.eval()


if __name__ == "__main__":
    train()
