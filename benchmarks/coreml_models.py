"""The models of coreml_packages.py: trained ones from installed packages, and small nets of the classes that matter.

Random nets are scaled so that their outputs depend on their inputs, and every report says by how much.
"""

# ruff: noqa: D101, D102 - nets as the field writes them
from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

Samples = dict[str, np.ndarray]
Built = tuple[nn.Module, Samples]


def photos(folder: Path | None, count: int) -> tuple[np.ndarray, list[str]]:
    """Photos ready for EfficientNet-Lite0: from a folder, else foolbox's twenty."""
    import efficientnet_lite0
    import foolbox

    if folder is not None and folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    else:
        files = sorted((Path(foolbox.__file__).parent / "data").glob("imagenet_*"))
    files = files[:count]
    return np.stack([efficientnet_lite0.photo(path) for path in files]), [path.name for path in files]


def efficientnet() -> Built:
    import efficientnet_lite0

    return efficientnet_lite0.build(), {"image": photos(None, 8)[0]}


def _images(count: int, channels: int, size: int) -> np.ndarray:
    """Smooth random images: low-frequency noise, as photos have."""
    generator = torch.Generator().manual_seed(1)
    small = torch.randn(count, channels, size // 8, size // 8, generator=generator)
    return F.interpolate(small, size=size, mode="bilinear").numpy()


def _settle(model: nn.Module, images: np.ndarray) -> nn.Module:
    """Batch-norm statistics from data, so that activations of a random net stay of order one."""
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.from_numpy(images))
        model.eval()
        # Centre the outputs of a classifier, so that its answer depends on the image and not on its bias.
        if isinstance(model, nn.Sequential) and isinstance(model[-1], nn.Linear):
            model[-1].bias -= model(torch.from_numpy(images)).mean(0)
    return model


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * 4
        self.skip = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.skip else self.body(x)


def mobilenet_v2() -> Built:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
    widths = ((16, 24, 2), (24, 24, 1), (24, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))
    model = nn.Sequential(
        stem, *(InvertedResidual(*w) for w in widths), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 100)
    )
    images = _images(8, 3, 96)
    return _settle(model, images), {"image": images}


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.short = (
            nn.Identity() if same else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.short(x))


def resnet18() -> Built:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 32, 7, 2, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    widths = (
        (32, 32, 1),
        (32, 32, 1),
        (32, 64, 2),
        (64, 64, 1),
        (64, 128, 2),
        (128, 128, 1),
        (128, 256, 2),
        (256, 256, 1),
    )
    model = nn.Sequential(
        stem, *(BasicBlock(*w) for w in widths), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 100)
    )
    images = _images(8, 3, 96)
    return _settle(model, images), {"image": images}


def minilm() -> Built:
    import minilm_encoder

    tokens = minilm_encoder.tokens(minilm_encoder.sentences(16))
    return minilm_encoder.build(), {name: tokens[name] for name in ("input_ids", "attention_mask")}


class Vit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from transformers import ViTConfig, ViTModel

        config = ViTConfig(
            hidden_size=96, num_hidden_layers=4, num_attention_heads=4, intermediate_size=192, image_size=64
        )
        self.vit = ViTModel(config, add_pooling_layer=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.vit(pixel_values=pixels).last_hidden_state


def vit() -> Built:
    torch.manual_seed(0)
    model = Vit().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)  # transformers starts at 0.02, which hardly depends on the input
    return model, {"pixels": _images(8, 3, 64)}


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.rnn = kind(24, 32, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0])


def _recurrent(kind: type[nn.Module]) -> Built:
    torch.manual_seed(0)
    return Recurrent(kind).eval(), {"x": np.random.default_rng(0).normal(size=(8, 20, 24)).astype(np.float32)}


class Silero(nn.Module):
    """silero-vad's 16 kHz net in plain torch, with its trained weights: 576 samples and state → speech, state."""

    def __init__(self) -> None:
        super().__init__()
        import silero_vad

        self.stft_conv = nn.Conv1d(1, 258, 256, 128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, 1, 1)
        self.conv2 = nn.Conv1d(128, 64, 3, 2, 1)
        self.conv3 = nn.Conv1d(64, 64, 3, 2, 1)
        self.conv4 = nn.Conv1d(64, 128, 3, 1, 1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)
        trained = torch.jit.load(Path(silero_vad.__file__).parent / "data" / "silero_vad.jit")._model.state_dict()
        names = {
            "stft.forward_basis_buffer": "stft_conv.weight",
            "decoder.rnn.": "lstm_cell.",
            "decoder.decoder.2.": "final_conv.",
        }
        names |= {f"encoder.{number}.reparam_conv.": f"conv{number + 1}." for number in range(4)}
        for old, new in names.items():
            trained = {key.replace(old, new): value for key, value in trained.items()}
        self.load_state_dict(trained)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        spectrum = self.stft_conv(F.pad(x.unsqueeze(1), (0, 64), "reflect"))
        y = torch.sqrt(spectrum[:, :129] ** 2 + spectrum[:, 129:] ** 2)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            y = torch.relu(conv(y))
        h, c = self.lstm_cell(y.squeeze(-1), (state[:, 0], state[:, 1]))
        speech = torch.sigmoid(self.final_conv(torch.relu(h).unsqueeze(-1))).squeeze(1)
        return speech, torch.stack([h, c], 1)


def silero() -> Built:
    """Voiced and unvoiced sound: harmonics of a falling pitch under a syllable envelope, and noise."""
    rng = np.random.default_rng(0)
    time = np.arange(576) / 16000
    sounds = []
    for number in range(16):
        pitch = 100 + 12 * number
        voiced = sum(np.sin(2 * np.pi * pitch * k * time + k) / k for k in range(1, 20))
        sounds.append(0.1 * voiced * (number % 3) + 0.01 * rng.normal(size=576))
    model = Silero().eval()
    return model, {
        "x": np.stack(sounds).astype(np.float32),
        "state": (0.1 * rng.normal(size=(16, 2, 128))).astype(np.float32),
    }


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.SiLU())
        self.down2 = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, 1, 1), nn.GroupNorm(4, 32), nn.SiLU())
        self.down3 = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(32, 64, 3, 1, 1), nn.InstanceNorm2d(64), nn.GELU())
        self.up2 = nn.ConvTranspose2d(64, 32, 2, 2)
        self.mix2 = nn.Conv2d(64, 32, 3, 1, 1)
        self.mix1 = nn.Conv2d(48, 16, 3, 1, 1)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.down1(x)
        b = self.down2(a)
        y = torch.relu(self.mix2(torch.cat([self.up2(self.down3(b)), b], 1)))
        y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
        return self.head(F.leaky_relu(self.mix1(torch.cat([y, a], 1)), 0.1))


def unet() -> Built:
    torch.manual_seed(0)
    images = _images(8, 3, 64)
    return _settle(UNet(), images), {"image": images}


MODELS: dict[str, Callable[[], Built]] = {
    "EfficientNet-Lite0 (trained)": efficientnet,
    "MiniLM-L6 (trained)": minilm,
    "silero-vad (trained)": silero,
    "MobileNetV2-like": mobilenet_v2,
    "ResNet-18-like": resnet18,
    "ViT": vit,
    "LSTM": lambda: _recurrent(nn.LSTM),
    "GRU": lambda: _recurrent(nn.GRU),
    "U-Net-like": unet,
}
