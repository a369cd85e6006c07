"""YOLOv4-tiny, YOLOv7-tiny and YOLOX-S of the AI Hub table, by hand from their papers."""

# ruff: noqa: D102 - forward says what its class does
from __future__ import annotations

import torch
from cost_model_yolo import _C3, Conv, _Anchors, _Chain, _Concat, _leaky, _up
from torch import nn


class _Elan(nn.Module):
    """YOLOv7-tiny's aggregation of four branches."""

    def __init__(self, a, hidden, b):
        super().__init__()
        self.one, self.two = Conv(a, hidden, act=_leaky), Conv(a, hidden, act=_leaky)
        self.three, self.four = Conv(hidden, hidden, 3, act=_leaky), Conv(hidden, hidden, 3, act=_leaky)
        self.last = Conv(4 * hidden, b, act=_leaky)

    def forward(self, x):
        one, two = self.one(x), self.two(x)
        three = self.three(two)
        return self.last(torch.cat([self.four(three), three, two, one], 1))


class _SppCsp(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.one, self.two = Conv(a, b, act=_leaky), Conv(a, b, act=_leaky)
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13))
        self.merge, self.last = Conv(4 * b, b, act=_leaky), Conv(2 * b, b, act=_leaky)

    def forward(self, x):
        two = self.two(x)
        return self.last(
            torch.cat([self.merge(torch.cat([*(pool(two) for pool in self.pools), two], 1)), self.one(x)], 1)
        )


def yolo7_tiny():
    """YOLOv7-tiny."""

    def conv(a, b, k=1, s=1):
        return Conv(a, b, k, s, act=_leaky)

    pool = nn.MaxPool2d(2, 2)
    return _Chain([
        (-1, conv(3, 32, 3, 2)), (-1, conv(32, 64, 3, 2)), (-1, _Elan(64, 32, 64)), (-1, pool),
        (-1, _Elan(64, 64, 128)), (-1, pool), (-1, _Elan(128, 128, 256)), (-1, pool), (-1, _Elan(256, 256, 512)),
        (-1, _SppCsp(512, 256)),
        (-1, conv(256, 128)), (-1, _up()), (6, conv(256, 128)), ((12, 11), _Concat()), (-1, _Elan(256, 64, 128)),
        (-1, conv(128, 64)), (-1, _up()), (4, conv(128, 64)), ((17, 16), _Concat()), (-1, _Elan(128, 32, 64)),
        (-1, conv(64, 128, 3, 2)), ((20, 14), _Concat()), (-1, _Elan(256, 64, 128)),
        (-1, conv(128, 256, 3, 2)), ((23, 9), _Concat()), (-1, _Elan(512, 128, 256)),
        (19, conv(64, 128, 3)), (22, conv(128, 256, 3)), (25, conv(256, 512, 3)),
        ((26, 27, 28), _Anchors((128, 256, 512), 85)),
    ])  # fmt: skip


class _TinyCsp(nn.Module):
    """YOLOv4-tiny's block: half of the channels go on."""

    def __init__(self, c):
        super().__init__()
        self.first = Conv(c, c, 3, act=_leaky)
        self.one, self.two = Conv(c // 2, c // 2, 3, act=_leaky), Conv(c // 2, c // 2, 3, act=_leaky)
        self.merge = Conv(c, c, act=_leaky)

    def forward(self, x):
        x = self.first(x)
        one = self.one(x.chunk(2, 1)[1])
        merged = self.merge(torch.cat([self.two(one), one], 1))
        return torch.cat([x, merged], 1), merged


class Yolo4Tiny(nn.Module):
    """YOLOv4-tiny."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(Conv(3, 32, 3, 2, act=_leaky), Conv(32, 64, 3, 2, act=_leaky))
        self.blocks = nn.ModuleList(_TinyCsp(c) for c in (64, 128, 256))
        self.pool, self.deep = nn.MaxPool2d(2), nn.Sequential(Conv(512, 512, 3, act=_leaky), Conv(512, 256, act=_leaky))
        self.side = nn.Sequential(Conv(256, 128, act=_leaky), _up())
        self.one, self.two = Conv(256, 512, 3, act=_leaky), Conv(384, 256, 3, act=_leaky)
        self.head = _Anchors((512, 256), 85)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x, merged = block(x)
            x = self.pool(x)
        deep = self.deep(x)
        return self.head([self.one(deep), self.two(torch.cat([self.side(deep), merged], 1))])


class YoloX(nn.Module):
    """YOLOX-S: CSPDarknet, PAFPN and a decoupled anchor-free head."""

    def __init__(self):
        super().__init__()
        c1, c2, c3, c4, c5 = 32, 64, 128, 256, 512
        self.focus = Conv(12, c1, 3)
        self.stages = nn.ModuleList([
            nn.Sequential(Conv(c1, c2, 3, 2), _C3(c2, c2, 1)), nn.Sequential(Conv(c2, c3, 3, 2), _C3(c3, c3, 3)),
            nn.Sequential(Conv(c3, c4, 3, 2), _C3(c4, c4, 3)),
            nn.Sequential(Conv(c4, c5, 3, 2), _Spp(c5), _C3(c5, c5, 1, False)),
        ])  # fmt: skip
        self.lateral, self.reduce = Conv(c5, c4), Conv(c4, c3)
        self.up4, self.up3 = _C3(c5, c4, 1, False), _C3(c4, c3, 1, False)
        self.down3, self.down4 = Conv(c3, c3, 3, 2), Conv(c4, c4, 3, 2)
        self.out4, self.out5 = _C3(c4, c4, 1, False), _C3(c5, c5, 1, False)
        self.rise = _up()
        self.stems = nn.ModuleList(Conv(c, 128) for c in (c3, c4, c5))
        self.cls = nn.ModuleList(nn.Sequential(Conv(128, 128, 3), Conv(128, 128, 3)) for _ in range(3))
        self.reg = nn.ModuleList(nn.Sequential(Conv(128, 128, 3), Conv(128, 128, 3)) for _ in range(3))
        self.heads = nn.ModuleList(
            nn.ModuleList([nn.Conv2d(128, 80, 1), nn.Conv2d(128, 4, 1), nn.Conv2d(128, 1, 1)]) for _ in range(3)
        )

    def forward(self, x):
        x = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
        x = self.stages[0](self.focus(x))
        p3 = self.stages[1](x)
        p4 = self.stages[2](p3)
        top = self.lateral(self.stages[3](p4))
        middle = self.reduce(self.up4(torch.cat([self.rise(top), p4], 1)))
        n3 = self.up3(torch.cat([self.rise(middle), p3], 1))
        n4 = self.out4(torch.cat([self.down3(n3), middle], 1))
        n5 = self.out5(torch.cat([self.down4(n4), top], 1))
        found = []
        for index, feature in enumerate((n3, n4, n5)):
            stem = self.stems[index](feature)
            cls, reg = self.cls[index](stem), self.reg[index](stem)
            score, box, objectness = self.heads[index]
            found.append(torch.cat([box(reg), objectness(reg).sigmoid(), score(cls).sigmoid()], 1).flatten(2))
        found = torch.cat(found, 2).permute(0, 2, 1)
        place, size, objectness, score = found.split([2, 2, 1, 80], -1)
        place, size = (place + 1) * 8, size.exp() * 8
        return torch.cat([place - size / 2, place + size / 2], -1), *(score * objectness).max(-1)


class _Spp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.first, self.last = Conv(c, c // 2), Conv(c * 2, c)
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13))

    def forward(self, x):
        x = self.first(x)
        return self.last(torch.cat([x, *(pool(x) for pool in self.pools)], 1))
