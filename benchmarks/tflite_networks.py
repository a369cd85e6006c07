"""The networks of `tflite_writer_peers.py`, trained on real data: digits, and Fashion-MNIST in three shapes.

    python benchmarks/tflite_networks.py WORK     # trains what WORK lacks; a few minutes on one core

Fashion-MNIST comes from Debian's dataset-fashion-mnist. Each network leaves a folder with model.pt2, model.onnx (the
canonical graph), calib.npz and eval.npz (inputs, labels, float outputs).
"""

from __future__ import annotations

import gzip
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

FASHION = Path("/usr/share/datasets/fashion-mnist")
CALIBRATION, EVALUATION = 100, 1000


def conv_bn(inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, group: int = 1) -> nn.Sequential:
    pad = kernel // 2 if isinstance(kernel, int) else tuple(size // 2 for size in kernel)
    conv = nn.Conv2d(inputs, outputs, kernel, stride, pad, groups=group, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class MobileNetV1(nn.Module):
    """MobileNetV1 of width 0.25 for 96x96, as MLPerf Tiny's visual wake words has it."""

    def __init__(self) -> None:
        super().__init__()
        layers, inputs = [conv_bn(3, 8, 3, 2)], 8
        plan = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *((128, 1),) * 5, (256, 2), (256, 1))
        for outputs, stride in plan:
            layers += [conv_bn(inputs, inputs, 3, stride, inputs), conv_bn(inputs, outputs, 1)]
            inputs = outputs
        self.features, self.head = nn.Sequential(*layers), nn.Linear(inputs, 10)

    def forward(self, image):  # noqa: D102
        return self.head(self.features(image).mean((2, 3)))


class Inverted(nn.Module):
    """MobileNetV2's block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        middle = 4 * inputs
        self.body = nn.Sequential(
            conv_bn(inputs, middle, 1), conv_bn(middle, middle, 3, stride, middle),
            nn.Conv2d(middle, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):  # noqa: D102
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV2(nn.Module):
    """A MobileNetV2-like net for 96x96."""

    def __init__(self) -> None:
        super().__init__()
        plan = ((8, 1), (16, 2), (16, 1), (24, 2), (24, 1), (32, 2), (32, 1), (48, 2), (48, 1))
        layers, inputs = [conv_bn(3, 8, 3, 2)], 8
        for outputs, stride in plan:
            layers.append(Inverted(inputs, outputs, stride))
            inputs = outputs
        self.features, self.head = nn.Sequential(*layers, conv_bn(inputs, 128, 1)), nn.Linear(128, 10)

    def forward(self, image):  # noqa: D102
        return self.head(self.features(image).mean((2, 3)))


class DsCnn(nn.Module):
    """The keyword-spotting DS-CNN, 49x10 input."""

    def __init__(self) -> None:
        super().__init__()
        layers = [conv_bn(1, 64, (10, 4), 2)]
        for _ in range(4):
            layers += [conv_bn(64, 64, 3, 1, 64), conv_bn(64, 64, 1)]
        self.features, self.head = nn.Sequential(*layers), nn.Linear(64, 10)

    def forward(self, image):  # noqa: D102
        return self.head(self.features(image).mean((2, 3)))


class AutoEncoder(nn.Module):
    """The anomaly-detection autoencoder, 640 inputs."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (640, 128, 128, 128, 8, 128, 128, 128, 640)
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.body = nn.Sequential(*layers[:-1])

    def forward(self, image):  # noqa: D102
        return self.body(image)


def fashion() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training images (60000, 1, 28, 28) 0 to 1 and labels, test images and labels."""

    def read(name: str, skip: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((FASHION / name).read_bytes()), np.uint8, offset=skip)

    parts = []
    for part in ("train", "t10k"):
        images = read(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28).astype(np.float32) / 255
        parts += [torch.from_numpy(images), torch.from_numpy(read(f"{part}-labels-idx1-ubyte.gz", 8).astype(np.int64))]
    return tuple(parts)


def resized(height: int, width: int, channels: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(images: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(images, (height, width), mode="bilinear").repeat(1, channels, 1, 1)

    return change


def flat(images: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(images, (20, 32), mode="bilinear").flatten(1)


#: name → (class, how images are shaped, training images, epochs)
NETWORKS = {
    "autoencoder": (AutoEncoder, flat, 20000, 4),
    "dscnn": (DsCnn, resized(49, 10, 1), 4000, 3),
    "mobilenetv2": (MobileNetV2, resized(96, 96, 3), 2500, 2),
    "mobilenetv1": (MobileNetV1, resized(96, 96, 3), 4000, 2),
}


def train(name: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A trained network, calibration inputs, evaluation inputs and labels."""
    make, shape, count, epochs = NETWORKS[name]
    torch.manual_seed(0)
    images, labels, test, test_labels = fashion()
    model = make()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, epochs * -(-count // 64))
    for _ in range(epochs):
        for part in torch.randperm(count).split(64):
            x = shape(images[part])
            out = model(x)
            loss = (
                nn.functional.mse_loss(out, x)
                if name == "autoencoder"
                else nn.functional.cross_entropy(out, labels[part])
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval(), shape(images[-CALIBRATION:]), shape(test[:EVALUATION]), test_labels[:EVALUATION]


def digits() -> tuple[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor]:
    import digits_cnn

    images, _, test, labels = digits_cnn.data()
    torch.manual_seed(0)
    return (
        digits_cnn.train().eval(), torch.from_numpy(images[:CALIBRATION]), torch.from_numpy(test),
        torch.from_numpy(labels),
    )  # fmt: skip


def prepare(name: str, folder: Path) -> None:
    """Train, export and save one network, unless that was done."""
    if (folder / "eval.npz").exists():
        return
    from edgedeploy.graph.capture import capture
    from edgedeploy.model.load import LoadOptions, load_model

    model, calibration, evaluation, labels = digits() if name == "digits" else train(name)
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        reference = torch.cat([model(x) for x in evaluation.split(1)])
    torch.export.save(torch.export.export(model, (calibration[:1],)), folder / "model.pt2")
    graph = capture(load_model(folder / "model.pt2", LoadOptions()))
    (folder / "model.onnx").write_bytes(graph.model.SerializeToString(deterministic=True))
    np.savez(folder / "calib.npz", **{graph.inputs[0].name: calibration.numpy()})
    np.savez(folder / "eval.npz", inputs=evaluation.numpy(), labels=labels.numpy(), outputs=reference.numpy())
    if name != "autoencoder":
        print(f"{name}: accuracy {(reference.argmax(1) == labels).float().mean():.3f}", flush=True)


def main() -> None:
    work = Path(sys.argv[1])
    for name in ("digits", *NETWORKS):
        if name != "digits" and not FASHION.exists():
            print(f"{name}: skipped, {FASHION} is absent (apt-get install dataset-fashion-mnist)")
            continue
        prepare(name, work / name)


if __name__ == "__main__":
    main()
