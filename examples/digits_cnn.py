"""A small CNN trained in seconds on scikit-learn's 1,797 real 8x8 digits: the demo.

    python examples/digits_cnn.py OUT     # writes model.pt, model.calib.npz, model.eval.npz, deploy.toml

Needs scikit-learn (the ``test`` extra brings it).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

CONFIG = """\
[model]
name = "digits"

[data]
calibration = "model.calib.npz"
evaluation = "model.eval.npz"

[quality]
max_accuracy_drop = 0.02
min_agreement = 0.98
"""


class DigitsCnn(nn.Module):
    """Convolutions with batch norm, a residual add, a depthwise one and a linear head; input (n, 1, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.BatchNorm2d(32), nn.ReLU6())
        self.head = nn.Linear(32, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return class scores (n, 10) for images (n, 1, 8, 8) with values 0 to 1."""
        features = self.stem(image)
        features = features + self.body(features)
        features = self.depthwise(self.down(features))
        scores: torch.Tensor = self.head(features.mean(dim=(2, 3)))
        return scores


def data() -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Return training images, training labels, test images, test labels; images (n, 1, 8, 8) float32 in 0 to 1."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = (digits.images[order, None] / 16).astype(np.float32)
    labels = digits.target[order].astype(np.int64)
    return images[:1297], labels[:1297], images[1297:], labels[1297:]


def train(epochs: int = 12) -> DigitsCnn:
    """Train on the first 1,297 digits; about 97 % on the other 500."""
    torch.manual_seed(0)
    images, labels, _, _ = data()
    inputs, targets = torch.from_numpy(images), torch.from_numpy(labels)
    model = DigitsCnn()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()
            optimizer.step()
    return model.eval()


def write(folder: Path) -> None:
    """Write the trained model as a .pt2 archive named model.pt, its data and its deploy.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    model = train()
    images, _, test_images, test_labels = data()
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(model, (torch.zeros(2, 1, 8, 8),), dynamic_shapes={"image": {0: batch}})
    with (folder / "model.pt").open("wb") as file:
        torch.export.save(program, file)
    np.savez(folder / "model.calib.npz", image=images[:128])
    np.savez(folder / "model.eval.npz", image=test_images, labels=test_labels)
    (folder / "deploy.toml").write_text(CONFIG)


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "digits"))
