"""Networks of the microcontroller, iPhone, Jetson and CPU tables: MLPerf Tiny's by hand, the rest from timm.

ncnn's own and MLPerf Inference's stand in files of their own.
"""

from __future__ import annotations

from itertools import pairwise

from cost_model_mlperf_networks import MLPERF
from cost_model_ncnn_networks import NCNN
from cost_model_networks import IMAGE, _hf, _own, _timm, _tv
from torch import nn


def _conv(a, b, k, s=1, groups=1, pad=None):
    return [
        nn.Conv2d(a, b, k, s, (k // 2 if isinstance(k, int) else (k[0] // 2, k[1] // 2)) if pad is None else pad,
                  groups=groups, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
    ]  # fmt: skip


def _mobilenet_v1(width=1.0, classes=1000):
    def w(channels):
        return int(channels * width)

    plan = [(32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2)]
    plan += [(512, 512, 1)] * 5 + [(512, 1024, 2), (1024, 1024, 1)]
    parts = _conv(3, w(32), 3, 2)
    for a, b, s in plan:
        parts += _conv(w(a), w(a), 3, s, w(a)) + _conv(w(a), w(b), 1)
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(w(1024), classes), nn.Softmax(1))


def _autoencoder():
    parts, sizes = [], (640, 128, 128, 128, 128, 8, 128, 128, 128, 128)
    for a, b in pairwise(sizes):
        parts += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(128, 640))


def _ds_cnn():
    parts = _conv(1, 64, (10, 4), 2, pad=(5, 1))
    for _ in range(4):
        parts += _conv(64, 64, 3, 1, 64) + _conv(64, 64, 1)
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 12), nn.Softmax(1))


class _ResNet8(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(*_conv(3, 16, 3))
        self.main = nn.ModuleList(
            nn.Sequential(*_conv(a, b, 3, s), *_conv(b, b, 3)[:2])
            for a, b, s in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        )
        self.side = nn.ModuleList([nn.Identity(), nn.Conv2d(16, 32, 1, 2), nn.Conv2d(32, 64, 1, 2)])
        self.last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1))

    def forward(self, x):
        x = self.first(x)
        for main, side in zip(self.main, self.side, strict=True):
            x = (main(x) + side(x)).relu()
        return self.last(x)


_256 = (1, 3, 256, 256)


def _clip_text(width):
    """CLIP's text encoder at a width of 64 a head, 12 layers, 77 tokens."""
    return _hf(
        ("CLIPTextConfig", "CLIPTextModelWithProjection"), ((1, 77, "ids"),),
        vocab_size=49408, hidden_size=width, intermediate_size=4 * width, num_attention_heads=width // 64,
        projection_dim=width,
    )  # fmt: skip


SMALL = {
    "tiny-ad": ("autoencoder", *_own(_autoencoder, (1, 640))),
    "tiny-kws": ("ds_cnn", *_own(_ds_cnn, (1, 1, 49, 10))),
    "tiny-ic": ("resnet8", *_own(_ResNet8, (1, 3, 32, 32))),
    "tiny-vww": ("mobilenet_v1", *_own(lambda: _mobilenet_v1(0.25, 2), (1, 3, 96, 96))),
    "mobilenet": ("mobilenet", *_own(_mobilenet_v1, IMAGE)),
    "vgg16": ("vgg", *_tv("vgg16")),
    "efficientnetv2_b0": ("efficientnet", *_timm("tf_efficientnetv2_b0")),
    "regnety_400m": ("regnet", *_timm("regnety_004")),
    "shufflenet_v2_x1_0": ("shufflenet", *_tv("shufflenet_v2_x1_0")),
    **{f"MobileOne-S{i}": ("mobileone", *_timm(f"mobileone_s{i}")) for i in (0, 1, 3, 4)},
    **{
        f"FastViT-{size}": ("fastvit", *_timm(f"fastvit_{size.lower()}", _256))
        for size in ("T8", "S12", "SA12", "SA36", "MA36")
    },
    **{
        f"EfficientFormerV2-{size}": ("efficientformer", *_timm(f"efficientformerv2_{size.lower()}"))
        for size in ("S0", "S1", "S2", "L")
    },
    "EfficientFormer-L1": ("efficientformer", *_timm("efficientformer_l1")),
    "EfficientFormer-L7": ("efficientformer", *_timm("efficientformer_l7")),
    **{
        f"MobileCLIP2-S{i} image": ("mobileclip", *_timm(f"fastvit_mci{i}", _256, num_classes=512))
        for i in (0, 2, 3, 4)
    },
    "MobileCLIP-S1 image": ("mobileclip", *_timm("fastvit_mci1", _256, num_classes=512)),
    "MobileCLIP-L/14 image": ("vit", *_timm("vit_large_patch14_clip_224", num_classes=768)),
    "MobileCLIP-B image": ("vit", *_timm("vit_base_mci_224", num_classes=512)),
    "CLIP text 63M": ("cliptext", *_clip_text(512)),
    "CLIP text 124M": ("cliptext", *_clip_text(768)),
    "MobileViTv2-1.0": ("mobilevit", *_timm("mobilevitv2_100", _256)),
    **NCNN,
    **MLPERF,
}  # fmt: skip
