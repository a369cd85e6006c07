"""MobileNetV2 at its full width and depth (Sandler et al. 2018, table 2), 96 x 96 pixels, trained briefly.

Input (n, 3, 96, 96) float32 in [-1, 1]: Fashion-MNIST images (Debian package ``dataset-fashion-mnist``), enlarged.
Ten classes, 2.2 million parameters. 400 steps of 32 images take about six minutes on one core; the weights are kept in
the temporary folder. The network is here for its size and its shape, not for its accuracy.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import fashion_mobilenet
import numpy as np
import torch
from torch import nn

#: (expansion, channels, repeats, stride)
BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEPS, BATCH = 400, 32


class MobileNetV2(nn.Module):
    """Input (n, 3, 96, 96), ten classes."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = fashion_mobilenet.conv(3, 32, 3, 2)
        channels = 32
        for expansion, after, repeats, stride in BLOCKS:
            for place in range(repeats):
                step = stride if place == 0 else 1
                layers.append(fashion_mobilenet.InvertedResidual(channels, after, expansion, step))
                channels = after
        layers += fashion_mobilenet.conv(channels, 1280, 1)
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(1280, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        return self.classifier(self.features(x).mean((2, 3)))


def enlarged(images: np.ndarray) -> torch.Tensor:
    """(n, 1, 28, 28) as (n, 3, 96, 96)."""
    large = nn.functional.interpolate(torch.from_numpy(images), (96, 96), mode="bilinear", align_corners=False)
    return large.repeat(1, 3, 1, 1)


def train() -> nn.Module:
    """Train, or load what an earlier run trained."""
    folder = Path(tempfile.gettempdir()) / f"edgedeploy-benchmarks-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"mobilenet-v2-{STEPS}x{BATCH}.pt"
    torch.manual_seed(0)
    model = MobileNetV2()
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    arrays = fashion_mobilenet.data()
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, STEPS)
    for step in range(STEPS):
        chosen = torch.randint(len(arrays["train"]), (BATCH,)).numpy()
        labels = torch.from_numpy(arrays["train_labels"][chosen])
        loss = nn.functional.cross_entropy(model(enlarged(arrays["train"][chosen])), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 10 == 0:
            print(f"  step {step}: loss {loss.item():.3f}", flush=True)
    aside = path.with_suffix(f".{os.getpid()}")
    torch.save(model.state_dict(), aside)
    aside.replace(path)
    return model.eval()


if __name__ == "__main__":
    train()
