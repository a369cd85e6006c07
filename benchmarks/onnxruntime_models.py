"""The two architectures of the ONNX Runtime benchmark that no package brings: random weights, real shapes."""

from __future__ import annotations

import torch
from torch import nn


class Bottleneck(nn.Module):
    """ResNet's residual block (He et al. 2016, table 1), stride on the 3x3."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            *_norm(nn.Conv2d(inputs, width, 1, bias=False)),
            nn.ReLU(),
            *_norm(nn.Conv2d(width, width, 3, stride, 1, bias=False)),
            nn.ReLU(),
            *_norm(nn.Conv2d(width, outputs, 1, bias=False)),
        )
        plain = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if plain else nn.Sequential(*_norm(nn.Conv2d(inputs, outputs, 1, stride, bias=False)))
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the body to the shortcut."""
        return self.act(self.body(x) + self.skip(x))


def resnet50() -> nn.Module:
    """ResNet-50, 25.6 M random parameters, input (n, 3, 224, 224)."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [
        *_norm(nn.Conv2d(3, 64, 7, 2, 3, bias=False)),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    inputs = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            layers.append(Bottleneck(inputs, width, stride if block == 0 else 1))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)).eval()


def bert_base() -> nn.Module:
    """BERT-base encoder, 110 M random parameters, inputs `input_ids` and `attention_mask` (n, 128) int64."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    encoder = BertModel(BertConfig(attn_implementation="eager")).eval()

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.encoder(input_ids=input_ids, attention_mask=attention_mask).pooler_output

    return Pooled().eval()


def _norm(convolution: nn.Conv2d) -> tuple[nn.Module, nn.Module]:
    return convolution, nn.BatchNorm2d(convolution.out_channels)
