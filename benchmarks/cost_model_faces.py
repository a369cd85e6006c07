"""Networks of the AI Hub table for faces, people and portraits, by hand; the layer tables are the published ones."""

# ruff: noqa: D102 - forward says what its class does
from __future__ import annotations

import torch
from cost_model_yolo import Conv
from torch import nn

_RELU = nn.ReLU


class _Squeeze(nn.Module):
    """Squeeze and excitation; ``norm`` adds a batch norm after each of its convolutions."""

    def __init__(self, c, r=4, norm=True):
        super().__init__()
        hidden = c // r

        def one(a, b):
            return [nn.Conv2d(a, b, 1, bias=not norm), *([nn.BatchNorm2d(b)] if norm else [])]

        self.pool = nn.AdaptiveAvgPool2d(1)
        self.body = nn.Sequential(*one(c, hidden), nn.ReLU(), *one(hidden, c), nn.Sigmoid())

    def forward(self, x):
        return x * self.body(self.pool(x))


class _Dense3(nn.Module):
    """A MobileNetV3 block whose depthwise convolution is a full 3x3 one; kernel 5 is two of them."""

    def __init__(self, kernel, a, hidden, b, squeeze, s):
        super().__init__()
        body = [Conv(a, hidden, act=_RELU)]
        body += (
            [Conv(hidden, b, 3, s, act=_RELU)]
            if kernel == 3
            else [Conv(hidden, b, 3, act=_RELU), Conv(b, b, 3, s, act=_RELU)]
        )
        self.body = nn.Sequential(*body, *([_Squeeze(b)] if squeeze else []))
        self.short = Conv(a, b, act=None) if s == 1 and a != b else nn.Identity()
        self.adds = s == 1

    def forward(self, x):
        return self.body(x) + self.short(x) if self.adds else self.body(x)


class _Context(nn.Module):
    """The single-stage headless detector's context module (Najibi et al. 2017)."""

    def __init__(self, c):
        super().__init__()
        quarter = c // 4
        self.up, self.first = Conv(c, c // 2, 3, act=_RELU), Conv(c, quarter, 3, act=_RELU)
        self.near = Conv(quarter, quarter, 3, act=_RELU)
        self.far = nn.Sequential(Conv(quarter, quarter, 3, act=_RELU), Conv(quarter, quarter, 3, act=_RELU))

    def forward(self, x):
        first = self.first(x)
        return torch.cat([self.up(x), torch.cat([self.near(first), self.far(first)], 1)], 1)


_LITE = (
    (3, 16, 16, 16, 0, 2), (3, 16, 64, 32, 0, 2), (3, 32, 96, 32, 0, 1), (5, 32, 96, 32, 1, 2), (5, 32, 224, 32, 1, 1),
    (5, 32, 224, 32, 1, 1), (5, 32, 128, 64, 1, 1), (5, 64, 160, 64, 1, 1), (5, 64, 256, 96, 1, 2),
)  # fmt: skip
_FOOT = (
    (3, 16, 16, 16, 0, 1), (3, 16, 64, 16, 0, 2), (3, 16, 64, 16, 0, 1), (5, 16, 96, 32, 1, 2), (5, 32, 96, 32, 1, 1),
    (5, 32, 128, 32, 1, 1), (3, 32, 128, 64, 0, 2), (3, 64, 128, 64, 0, 1), (3, 64, 160, 64, 0, 1),
    (3, 64, 160, 64, 0, 1), (3, 64, 256, 64, 1, 1), (3, 64, 320, 64, 1, 1), (5, 64, 320, 64, 1, 1),
    (5, 64, 320, 96, 1, 2), (5, 96, 480, 96, 1, 1),
)  # fmt: skip


class CentreDetector(nn.Module):
    """Qualcomm's face and foot detectors: a backbone of full 3x3 blocks, a top-down path, heat map, box, landmarks."""

    def __init__(self, *, foot):
        super().__init__()
        plan, kept, wide, colours = (_FOOT, (2, 5, 12), 64, 3) if foot else (_LITE, (2, 7), 32, 1)
        self.norm = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3)) if foot else None
        self.stem = Conv(colours, 16, 3, 2, act=_RELU)
        self.blocks, self.kept = nn.ModuleList(_Dense3(*row) for row in plan), kept
        sizes = [plan[index][3] for index in kept]
        self.top = Conv(plan[-1][3], wide, act=_RELU)
        self.side = nn.ModuleList(Conv(c, wide, act=_RELU) for c in sizes[::-1])
        self.rise = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2), Conv(wide, wide, 3, act=_RELU)) for _ in kept
        )
        self.detect = _Context(wide)

        def head(outputs):
            return nn.Sequential(*([Conv(wide, wide, 3, act=_RELU)] if foot else []), nn.Conv2d(wide, outputs, 1))

        self.foot = foot
        self.heads = nn.ModuleList(head(n) for n in ((1, 1, 1, 4, 4, 4, 34, 17) if foot else (1, 4, 10)))

    def forward(self, x):
        x = self.norm(x * 255) if self.foot else (x - 0.442) / 0.28
        x = self.stem(x)
        sides = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.kept:
                sides.append(x)
        x = self.top(x)
        for rise, side, feature in zip(self.rise, self.side, sides[::-1], strict=True):
            x = rise(x) + side(feature)
        x = self.detect(x)
        found = [head(x) for head in self.heads]
        if not self.foot:
            return tuple(found)
        heat = torch.cat([item.sigmoid() for item in found[:3]], 1)
        return heat, torch.cat(found[3:6], 1), found[6], found[7].sigmoid()


class _DoubleBlaze(nn.Module):
    def __init__(self, a, b, k=5):
        super().__init__()
        hidden = max(a, b) // 2
        self.pad = nn.Conv2d(a, b, 1) if a != b else nn.Identity()
        self.body = nn.Sequential(
            Conv(a, a, k, groups=a, act=None), Conv(a, hidden, act=_RELU), Conv(hidden, hidden, k, groups=hidden, act=None),
            Conv(hidden, b, act=None),
        )  # fmt: skip
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.body(x) + self.pad(x))


class GearGuard(nn.Module):
    """YOLOv5's layout with double Blaze blocks and 3 anchors of 7 outputs."""

    def __init__(self):
        super().__init__()
        from cost_model_yolo import _Anchors, _Chain, _Concat, _up

        def conv(a, b, k=1, s=1):
            return Conv(a, b, k, s, act=_RELU)

        def blaze(a, b, n=1):
            return nn.Sequential(*(_DoubleBlaze(a if i == 0 else b, b) for i in range(n)))

        self.net = _Chain([
            (-1, nn.Sequential(nn.Conv2d(3, 32, 6, 2, 2), nn.ReLU())), (-1, conv(32, 64, 3, 2)), (-1, blaze(64, 64)),
            (-1, conv(64, 128, 3, 2)), (-1, blaze(128, 128)), (-1, conv(128, 256, 3, 2)), (-1, blaze(256, 256, 3)),
            (-1, conv(256, 512, 3, 2)), (-1, blaze(512, 512)), (-1, conv(512, 512, 3)), (-1, conv(512, 256)),
            (-1, _up()), ((11, 6), _Concat()), (-1, blaze(512, 256)), (-1, conv(256, 128)), (-1, _up()),
            ((15, 4), _Concat()), (-1, blaze(256, 128)), (-1, conv(128, 128, 3, 2)), ((18, 14), _Concat()),
            (-1, blaze(256, 256)), (-1, conv(256, 256, 3, 2)), ((21, 10), _Concat()), (-1, blaze(512, 512)),
            ((17, 20, 23), _Anchors((128, 256, 512), 7)),
        ])  # fmt: skip

    def forward(self, x):
        return self.net(x)


class _Grouped(nn.Sequential):
    """A 3x3 convolution in groups of 32 channels, then a 1x1 one."""

    def __init__(self, a, middle, b, s=1, act=True):
        super().__init__(
            nn.Conv2d(a, middle, 3, s, 1, groups=a // 32), nn.Conv2d(middle, b, 1), nn.BatchNorm2d(b),
            *([nn.PReLU()] if act else []),
        )  # fmt: skip


class _Branches(nn.Module):
    def __init__(self, one, two):
        super().__init__()
        self.one, self.two, self.act = one, two, nn.PReLU()

    def forward(self, x):
        return self.act(self.one(x) + self.two(x))


class FaceAttributes(nn.Module):
    """Qualcomm's facial attribute network: grouped residual stages and five small branches."""

    def __init__(self, c=64, blocks=(2, 6, 3)):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, c, 3, 1, 1), nn.BatchNorm2d(c), nn.PReLU())
        self.head = _Branches(
            nn.Sequential(_Grouped(c, c, c, 2), _Grouped(c, c, c, act=False)), _Grouped(c, c, c, 2, act=False)
        )
        self.stages = nn.ModuleList()
        for index, count in enumerate(blocks):
            a = c << index
            two = nn.Sequential(_Grouped(a, 4 * a, 2 * a, 2), _grouped_half(2 * a, a))
            parts = [_Branches(_Grouped(a, 2 * a, 2 * a, 2), two)]
            for _ in range(count - 1):
                b = 2 * a
                body = nn.Sequential(_Grouped(b, 2 * b, b), _Grouped(b, 2 * b, b, act=False))
                parts.append(_Branches(body, nn.Identity()))
            self.stages.append(nn.Sequential(*parts))
        self.near = nn.ModuleList(_Grouped(4 * c, 2 * c, 2 * c, 2) for _ in range(5))
        self.far = nn.ModuleList(_Grouped(10 * c, 5 * c, 2 * c, 2) for _ in range(5))
        self.classes = nn.ModuleList(nn.Linear(2 * c, 2) for _ in range(5))
        self.pool = nn.AvgPool2d(4, 1)

    def forward(self, x):
        x = self.head(self.stem(x))
        x = self.stages[1](self.stages[0](x))
        last = self.stages[2](x)
        found = []
        for near, far, classes in zip(self.near, self.far, self.classes, strict=True):
            found.append(classes(self.pool(far(torch.cat([near(x), last], 1))).flatten(1)))
        return torch.stack(found, 1).softmax(2)[:, :, 1]


def _grouped_half(b, a):
    """The second half of a downsampling branch keeps the groups of the stage before."""
    return nn.Sequential(
        nn.Conv2d(b, 2 * b, 3, 1, 1, groups=a // 32), nn.Conv2d(2 * b, b, 1), nn.BatchNorm2d(b)
    )  # fmt: skip


class _Basic(nn.Module):
    def __init__(self, a, b, s):
        super().__init__()
        self.body = nn.Sequential(Conv(a, b, 3, s, act=_RELU), Conv(b, b, 3, act=None))
        self.short = Conv(a, b, 1, s, act=None) if a != b or s > 1 else nn.Identity()

    def forward(self, x):
        return (self.body(x) + self.short(x)).relu()


def facemap():
    """ResNet-18 of half width whose last unit keeps 512 channels, 265 face parameters."""
    plan = [
        (32, 32, 1),
        (32, 32, 1),
        (32, 64, 2),
        (64, 64, 1),
        (64, 128, 2),
        (128, 128, 1),
        (128, 256, 2),
        (256, 512, 1),
    ]
    return nn.Sequential(
        nn.Conv2d(3, 1, 1), Conv(1, 32, 7, 2, act=_RELU), nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(3, 2),
        *(_Basic(*row) for row in plan), nn.AvgPool2d(4, 1), nn.Flatten(), nn.Linear(512, 265),
    )  # fmt: skip


class PoseNet(nn.Module):
    """MobileNetV1 at output stride 16 with four 1x1 heads."""

    def __init__(self):
        super().__init__()
        plan = [(32, 64, 1, 1), (64, 128, 2, 1), (128, 128, 1, 1), (128, 256, 2, 1), (256, 256, 1, 1), (256, 512, 2, 1)]
        plan += [(512, 512, 1, 1)] * 5 + [(512, 1024, 1, 1), (1024, 1024, 1, 2)]

        def relu6():
            return nn.ReLU6()

        body = [nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU6()]
        for a, b, s, d in plan:
            body += [nn.Conv2d(a, a, 3, s, d, d, a), nn.ReLU6(), nn.Conv2d(a, b, 1), nn.ReLU6()]
        self.body = nn.Sequential(*body)
        self.heads = nn.ModuleList(nn.Conv2d(1024, n, 1) for n in (17, 34, 32, 32))

    def forward(self, x):
        x = self.body(x * 2 - 1)
        return self.heads[0](x).sigmoid(), *(head(x) for head in self.heads[1:])


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
        _OsUnit(256, 384), _OsUnit(384, 384), *turn(384), _OsUnit(384, 512), _OsUnit(512, 512), Conv(512, 512, act=_RELU),
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
