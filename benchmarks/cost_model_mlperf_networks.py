"""The MLPerf Inference networks of the Jetson rows, from the published reference models.

Not rebuilt: rnnt (its time is that of a spoken sentence, whose length is not published), 3d-unet from v2.0 on (a whole
CT scan in as many windows as the patient needs), gptj and stable-diffusion-xl (hundreds of passes a query, one row).
"""

from __future__ import annotations

import torch
from cost_model_ncnn_networks import conv, mobilenet_ssd, net, ssd_heads
from cost_model_networks import _bert
from torch import Tensor
from torch.nn import functional


def _basic_block(x: Tensor, cout: int, s: int = 1) -> Tensor:
    side = x if s == 1 and x.shape[1] == cout else conv(x, cout, 1, s, act=False)
    return functional.relu(side + conv(conv(x, cout, 3, s), cout, 3, act=False))


def _ssd_resnet34(x: Tensor) -> tuple[Tensor, Tensor]:
    """SSD-ResNet34 at 1200 x 1200: the third stage keeps its stride of 8, the first two heads have a stride of 3."""
    x = functional.max_pool2d(conv(x, 64, 7, 2), 3, 2, 1)
    for cout, s, repeats in ((64, 1, 3), (128, 2, 4), (256, 1, 6)):
        for index in range(repeats):
            x = _basic_block(x, cout, s if index == 0 else 1)
    maps = [x]
    for narrow, wide in ((256, 512), (256, 512), (128, 256), (128, 256), (128, 256)):
        maps.append(conv(conv(maps[-1], narrow), wide, 3, 2))
    maps = [functional.max_pool2d(y, s, s) if s > 1 else y for y, s in zip(maps, (3, 3, 3, 3, 3, 1), strict=True)]
    return ssd_heads(maps, [4, 6, 6, 6, 4, 4], 3, 81)


def _conv3d(x: Tensor, cout: int, s: int = 1) -> Tensor:
    y = functional.conv3d(x, torch.empty(cout, x.shape[1], 3, 3, 3, device=x.device), None, s, 1)
    return functional.leaky_relu(functional.group_norm(y, cout))


def _unet3d(x: Tensor) -> Tensor:
    """nnU-Net of BraTS 2019 on 224 x 224 x 160, the 3d-unet of v0.7 to v1.1."""
    skips = []
    for cout in (32, 64, 128, 256):
        x = _conv3d(_conv3d(x, cout, 1 if not skips else 2), cout)
        skips.append(x)
    x = _conv3d(_conv3d(x, 320, 2), 320)
    for skip in reversed(skips):
        weight = torch.empty(x.shape[1], skip.shape[1], 2, 2, 2, device=x.device)
        x = torch.cat((functional.conv_transpose3d(x, weight, None, 2), skip), 1)
        x = _conv3d(_conv3d(x, skip.shape[1]), skip.shape[1])
    return functional.conv3d(x, torch.empty(4, 32, 1, 1, 1, device=x.device))


def _ssd_mobilenet(x: Tensor) -> tuple[Tensor, Tensor]:
    return mobilenet_ssd(x, 91)


#: Submissions pack their sequences: a question takes its own length, about 177 tokens on average over SQuAD 1.1's
#: development set (recalled, not looked up), not the 384 it may have: 384 would put AGX Xavier's Offline rate
#: above its peak.
_SQUAD_TOKENS = 177
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}

MLPERF = {
    "bert-large": ("bert", *_bert(_SQUAD_TOKENS, "BertForQuestionAnswering", **_LARGE)),
    "ssd-mobilenet": ("mobilenet", *net(_ssd_mobilenet, (1, 3, 300, 300))),
    "ssd-resnet34": ("resnet", *net(_ssd_resnet34, (1, 3, 1200, 1200))),
    "3d-unet-brats": ("unet", *net(_unet3d, (1, 4, 224, 224, 160))),
}  # fmt: skip
