"""Image restoration, upscaling, LiDAR and older detectors of the AI Hub table, by hand from their papers."""

# ruff: noqa: D102 - forward says what its class does
from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import layer_norm, pad


class _Norm2d(nn.Module):
    """Layer norm over channels."""

    def __init__(self, c):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(c)), nn.Parameter(torch.zeros(c))

    def forward(self, x):
        x = layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-6)
        return x.permute(0, 3, 1, 2)


class _Naf(nn.Module):
    """NAFNet's block: gates instead of activations (Chen et al. 2022)."""

    def __init__(self, c):
        super().__init__()
        self.one = nn.Sequential(_Norm2d(c), nn.Conv2d(c, 2 * c, 1), nn.Conv2d(2 * c, 2 * c, 3, 1, 1, groups=2 * c))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1))
        self.two = nn.Conv2d(c, c, 1)
        self.three, self.four = nn.Sequential(_Norm2d(c), nn.Conv2d(c, 2 * c, 1)), nn.Conv2d(c, c, 1)
        self.beta, self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1)), nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x):
        a, b = self.one(x).chunk(2, 1)
        y = a * b
        x = x + self.two(y * self.gate(y)) * self.beta
        a, b = self.three(x).chunk(2, 1)
        return x + self.four(a * b) * self.gamma


class NafNet(nn.Module):
    """NAFNet of width 64."""

    def __init__(self, down, middle, up, c=64):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, c, 3, 1, 1), nn.Conv2d(c, 3, 3, 1, 1)
        widths = [c << i for i in range(len(down))]
        self.down = nn.ModuleList(
            nn.Sequential(*(_Naf(w) for _ in range(n))) for n, w in zip(down, widths, strict=True)
        )
        self.steps = nn.ModuleList(nn.Conv2d(w, 2 * w, 2, 2) for w in widths)
        self.middle = nn.Sequential(*(_Naf(c << len(down)) for _ in range(middle)))
        self.rise = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * w, 4 * w, 1, bias=False), nn.PixelShuffle(2)) for w in widths[::-1]
        )
        self.up = nn.ModuleList(
            nn.Sequential(*(_Naf(w) for _ in range(n))) for n, w in zip(up, widths[::-1], strict=True)
        )

    def forward(self, image):
        high, wide = image.shape[-2:]
        image = pad(image, (0, -wide % 16, 0, -high % 16))
        x, kept = self.first(image), []
        for blocks, step in zip(self.down, self.steps, strict=True):
            kept.append(blocks(x))
            x = step(kept[-1])
        x = self.middle(x)
        for rise, blocks in zip(self.rise, self.up, strict=True):
            x = blocks(rise(x) + kept.pop())
        return (self.last(x) + image)[..., :high, :wide]


class Sesr(nn.Module):
    """SESR-M5 as trained: each block is a wide convolution and a squeeze (Bhardwaj et al. 2022), scale 4."""

    def __init__(self, c=16, blocks=5, scale=4):
        super().__init__()

        def block(a, b, k):
            return nn.Sequential(nn.Conv2d(a, 256, k, padding=k // 2, bias=False), nn.Conv2d(256, b, 1))

        self.anchor = nn.Conv2d(3, 3 * scale * scale, 1)
        self.first, self.last = block(3, c, 5), block(c, 3 * scale * scale, 5)
        self.blocks = nn.ModuleList(block(c, c, 3) for _ in range(blocks))
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, image):
        x = first = self.first(image).relu()
        for block in self.blocks:
            x = (x + block(x)).relu()
        return self.shuffle(self.last(x + first) + self.anchor(image))


class Xlsr(nn.Module):
    """XLSR (Ayazoglu 2021), scale 4."""

    def __init__(self, scale=4):
        super().__init__()
        parts = [nn.Conv2d(3, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 32, 1)]
        for _ in range(3):
            parts += [nn.Conv2d(32, 32, 3, 1, 1, groups=4), nn.ReLU(), nn.Conv2d(32, 32, 1)]
        self.side, self.body = nn.Conv2d(3, 16, 3, 1, 1), nn.Sequential(*parts)
        self.tail = nn.Sequential(nn.Conv2d(48, 32, 1), nn.ReLU(), nn.Conv2d(32, 3 * scale * scale, 3, 1, 1))
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, x):
        return self.shuffle(self.tail(torch.cat([self.body(x), self.side(x)], 1))).clamp(0, 1)


class _Aot(nn.Module):
    """AOT-GAN's block: four dilated branches and a gate from its own statistics (Zeng et al. 2021)."""

    def __init__(self, c):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.ReflectionPad2d(d), nn.Conv2d(c, c // 4, 3, dilation=d), nn.ReLU()) for d in (1, 2, 4, 8)
        )
        self.fuse = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3))
        self.gate = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3))

    def forward(self, x):
        y = self.fuse(torch.cat([branch(x) for branch in self.branches], 1))
        gate = self.gate(x)
        mean = gate.mean((2, 3), keepdim=True)
        spread = (gate - mean).pow(2).mean((2, 3), keepdim=True).sqrt()
        gate = (5 * (2 * (gate - mean) / spread - 1)).sigmoid()
        return x * (1 - gate) + y * gate


class AotGan(nn.Module):
    """AOT-GAN's generator: image and mask in, the painted image out."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(3), nn.Conv2d(4, 64, 7), nn.ReLU(), nn.Conv2d(64, 128, 4, 2, 1), nn.ReLU(),
            nn.Conv2d(128, 256, 4, 2, 1), nn.ReLU(), *(_Aot(256) for _ in range(8)),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Conv2d(256, 128, 3, 1, 1), nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Conv2d(128, 64, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(64, 3, 3, 1, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, image, mask):
        hidden = image * (1 - mask) + mask
        return self.body(torch.cat([hidden, mask], 1)) * mask + image * (1 - mask)


class Lama(nn.Module):
    """LaMa-dilated: a residual generator whose blocks blend four dilations (Suvorov et al. 2022)."""

    def __init__(self, blocks=9):
        super().__init__()

        def conv(a, b, k, s=1):
            return [nn.Conv2d(a, b, k, s, k // 2, padding_mode="reflect"), nn.BatchNorm2d(b), nn.ReLU()]

        def rise(a, b):
            return [nn.ConvTranspose2d(a, b, 3, 2, 1, 1), nn.BatchNorm2d(b), nn.ReLU()]

        self.body = nn.Sequential(
            *conv(4, 64, 7), *conv(64, 128, 3, 2), *conv(128, 256, 3, 2), *conv(256, 512, 3, 2),
            *(_Dilated(512) for _ in range(blocks)), *rise(512, 256), *rise(256, 128), *rise(128, 64),
            nn.Conv2d(64, 3, 7, 1, 3, padding_mode="reflect"), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, image, mask):
        found = self.body(torch.cat([image * (1 - mask), mask], 1))
        return mask * found + (1 - mask) * image


class _Dilated(nn.Module):
    """Two convolutions, each split over dilations 1, 2, 4 and 8 of the input's channels."""

    def __init__(self, c):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(c, c // 4, 3, 1, d, d) for d in (1, 2, 4, 8)) for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for _ in range(2))

    def forward(self, x):
        one = self.norms[0](torch.cat([conv(x) for conv in self.convs[0]], 1)).relu()
        return x + self.norms[1](torch.cat([conv(one) for conv in self.convs[1]], 1))
