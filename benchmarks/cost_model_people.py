"""Face and person recognition and portrait networks of the AI Hub table, by hand from their papers."""

# ruff: noqa: D102 - forward says what its class does
from __future__ import annotations

import torch
from cost_model_faces import _Squeeze
from cost_model_yolo import Conv
from torch import nn

_RELU = nn.ReLU


class _Reside(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x + self.body(x)


def _depth_wise(a, hidden, b, s):
    body = nn.Sequential(
        Conv(a, hidden, act=nn.PReLU),
        Conv(hidden, hidden, 3, s, groups=hidden, act=nn.PReLU),
        Conv(hidden, b, act=None),
    )
    return _Reside(body) if s == 1 and a == b else body


class IrSe(nn.Module):
    """ArcFace's IR-SE-100 at 112 x 112 (Deng et al. 2019)."""

    def __init__(self):
        super().__init__()
        parts = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)]
        for a, b, count in ((64, 64, 3), (64, 128, 13), (128, 256, 30), (256, 512, 3)):
            parts += [_IrSe(a if i == 0 else b, b, 2 if i == 0 else 1) for i in range(count)]
        parts += [nn.BatchNorm2d(512), nn.Flatten(), nn.Linear(512 * 49, 512), nn.BatchNorm1d(512)]
        self.body = nn.Sequential(*parts)

    def forward(self, x):
        return self.body(x)


class _IrSe(nn.Module):
    def __init__(self, a, b, s):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(a), nn.Conv2d(a, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b), nn.PReLU(b),
            nn.Conv2d(b, b, 3, s, 1, bias=False), nn.BatchNorm2d(b), _Squeeze(b, 16, norm=False),
        )  # fmt: skip
        self.short = nn.MaxPool2d(1, s) if a == b else Conv(a, b, 1, s, act=None)

    def forward(self, x):
        return self.body(x) + self.short(x)


class _OsUnit(nn.Module):
    """OSNet's unit: four streams of light 3x3 convolutions under one gate (Zhou et al. 2019)."""

    def __init__(self, a, b):
        super().__init__()
        c = b // 4

        def light():
            return nn.Sequential(nn.Conv2d(c, c, 1, bias=False), Conv(c, c, 3, groups=c, act=_RELU))

        self.first, self.last = Conv(a, c, act=_RELU), Conv(c, b, act=None)
        self.streams = nn.ModuleList(nn.Sequential(*(light() for _ in range(n))) for n in (1, 2, 3, 4))
        self.gate = _Squeeze(c, 16, norm=False)
        self.short = Conv(a, b, act=None) if a != b else nn.Identity()

    def forward(self, x):
        first = self.first(x)
        gated = [self.gate(stream(first)) for stream in self.streams]
        return (self.last(gated[0] + gated[1] + gated[2] + gated[3]) + self.short(x)).relu()


def osnet():
    """OSNet x1.0, embedding of 512."""

    def turn(c):
        return [Conv(c, c, act=_RELU), nn.AvgPool2d(2, 2)]

    return nn.Sequential(
        Conv(3, 64, 7, 2, act=_RELU), nn.MaxPool2d(3, 2, 1), _OsUnit(64, 256), _OsUnit(256, 256), *turn(256),
        _OsUnit(256, 384), _OsUnit(384, 384), *turn(384), _OsUnit(384, 512), _OsUnit(512, 512),
        Conv(512, 512, act=_RELU),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(),
    )  # fmt: skip


class _Gated(nn.Module):
    """MediaPipe's inverted residual with a gate from a pooled copy."""

    def __init__(self, a, hidden, squeezed, b, k, s, adds, act=nn.Hardswish):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(a, hidden, 1), act(), nn.Conv2d(hidden, hidden, k, s, k // 2, groups=hidden), act()
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(hidden, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, hidden, 1),
            nn.Sigmoid(),
        )
        self.last, self.adds = nn.Conv2d(hidden, b, 1), adds

    def forward(self, x):
        hidden = self.body(x)
        found = self.last(self.gate(hidden) * hidden)
        return found + x if self.adds else found


class _Rise(nn.Module):
    """Upsample, join the skip through a gate, a depthwise residual."""

    def __init__(self, a, c):
        super().__init__()
        self.side = nn.Conv2d(a, c, 1)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1), nn.ReLU(), nn.Conv2d(c, c, 1), nn.Sigmoid()
        )
        self.one = nn.Sequential(nn.Conv2d(c, c, 1), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(c, c, 3, 1, 1, groups=c), nn.ReLU())

    def forward(self, x, skip):
        x = self.side(nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear"))
        x = self.one(x + skip * self.gate(x + skip))
        return x + self.two(x)


class Selfie(nn.Module):
    """MediaPipe's selfie segmentation, 256 x 256."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.Hardswish())
        self.one = _Gated(16, 16, 8, 16, 3, 2, False, nn.ReLU)
        self.two = nn.Sequential(
            nn.Conv2d(16, 72, 1), nn.ReLU(), nn.Conv2d(72, 72, 3, 2, 1, groups=72), nn.ReLU(), nn.Conv2d(72, 24, 1)
        )
        self.three = nn.Sequential(
            nn.Conv2d(24, 88, 1), nn.ReLU(), nn.Conv2d(88, 88, 3, 1, 1, groups=88), nn.ReLU(), nn.Conv2d(88, 24, 1)
        )
        self.deep = nn.Sequential(
            _Gated(24, 96, 24, 32, 5, 2, False), _Gated(32, 128, 32, 32, 5, 1, True),
            _Gated(32, 128, 32, 32, 5, 1, True), _Gated(32, 96, 24, 32, 5, 1, True), _Gated(32, 96, 24, 32, 5, 1, True),
        )  # fmt: skip
        self.wide = nn.Sequential(nn.Conv2d(32, 128, 1), nn.ReLU())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 128, 1), nn.Sigmoid())
        self.rise = nn.ModuleList([_Rise(128, 24), _Rise(24, 16), _Rise(16, 16)])
        self.last = nn.ConvTranspose2d(16, 1, 2, 2)

    def forward(self, x):
        first = self.stem(x)
        second = self.one(first)
        third = self.two(second)
        third = third + self.three(third)
        x = self.deep(third)
        x = self.wide(x) * self.gate(x)
        for rise, skip in zip(self.rise, (third, second, first), strict=True):
            x = rise(x, skip)
        return self.last(x).sigmoid()


class MobileFace(nn.Module):
    """MobileFaceNet (Chen et al. 2018) on two faces and their mirror images."""

    def __init__(self):
        super().__init__()
        parts = [Conv(3, 64, 3, 2, act=nn.PReLU), Conv(64, 64, 3, groups=64, act=nn.PReLU)]
        for a, hidden, b, count, s in ((64, 128, 64, 5, 2), (64, 256, 128, 1, 2), (128, 256, 128, 6, 1),
                                       (128, 512, 128, 1, 2), (128, 256, 128, 2, 1)):  # fmt: skip
            parts += [_depth_wise(a if i == 0 else b, hidden, b, s if i == 0 else 1) for i in range(count)]
        self.body = nn.Sequential(*parts, Conv(128, 512, act=nn.PReLU))
        self.pool = nn.Sequential(nn.Conv2d(512, 512, 7, groups=512, bias=False), nn.BatchNorm2d(512))
        self.last = nn.Sequential(nn.Conv2d(512, 128, 1, bias=False), nn.BatchNorm2d(128), nn.Flatten())

    def forward(self, one, two):
        faces = torch.cat([one, one.flip(-1), two, two.flip(-1)], 0)
        found = self.last(self.pool(self.body(faces)))
        return torch.cat([found[:1] + found[1:2], found[2:3] + found[3:]], 0)
