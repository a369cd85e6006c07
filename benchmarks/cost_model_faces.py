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
            Conv(a, a, k, groups=a, act=None), Conv(a, hidden, act=_RELU),
            Conv(hidden, hidden, k, groups=hidden, act=None),
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
