"""DDRNet and PIDNet of the AI Hub table: two and three resolutions side by side, by hand from their papers."""

# ruff: noqa: D102 - forward says what its class does
from __future__ import annotations

import torch
from cost_model_dense import _Bottle, _conv, _to
from cost_model_faces import _Basic
from cost_model_yolo import Conv
from torch import nn


class _Ppm(nn.Module):
    """The deep pyramid pooling of DDRNet; PIDNet's processes all scales at once in four groups."""

    def __init__(self, a, middle, b, parallel):
        super().__init__()

        def unit(x, y, k=1, groups=1):
            return [nn.BatchNorm2d(x), nn.ReLU(), nn.Conv2d(x, y, k, padding=k // 2, groups=groups, bias=False)]

        pools = [nn.AvgPool2d(5, 2, 2), nn.AvgPool2d(9, 4, 4), nn.AvgPool2d(17, 8, 8), nn.AdaptiveAvgPool2d(1)]
        self.scale0, self.scales = (
            nn.Sequential(*unit(a, middle)),
            nn.ModuleList(nn.Sequential(pool, *unit(a, middle)) for pool in pools),
        )
        self.parallel = parallel
        self.process = (
            nn.Sequential(*unit(4 * middle, 4 * middle, 3, 4))
            if parallel
            else nn.ModuleList(nn.Sequential(*unit(middle, middle, 3)) for _ in range(4))
        )
        self.merge, self.short = nn.Sequential(*unit(5 * middle, b)), nn.Sequential(*unit(a, b))

    def forward(self, x):
        found = [self.scale0(x)]
        for index, scale in enumerate(self.scales):
            risen = _to(scale(x), x)
            found.append(risen + found[0] if self.parallel else self.process[index](risen + found[-1]))
        if self.parallel:
            found = [found[0], self.process(torch.cat(found[1:], 1))]
        return self.merge(torch.cat(found, 1)) + self.short(x)


def _layer(a, b, count, s=1, bottle=False):
    """Residual units of DDRNet and PIDNet, their last one without its ReLU."""
    units = []
    for i in range(count):
        if bottle:
            unit = _Bottle(a if i == 0 else 2 * b, b, 2 * b, s if i == 0 else 1)
        else:
            unit = _Basic(a if i == 0 else b, b, s if i == 0 else 1)
        units.append(unit)
    return nn.Sequential(*units)


def _seg_head(a, middle, b):
    return nn.Sequential(
        nn.BatchNorm2d(a), nn.ReLU(), nn.Conv2d(a, middle, 3, padding=1, bias=False), nn.BatchNorm2d(middle), nn.ReLU(),
        nn.Conv2d(middle, b, 1),
    )  # fmt: skip


class DDRNet(nn.Module):
    """DDRNet-23-slim (Hong et al. 2021) without its auxiliary head."""

    def __init__(self, c=32):
        super().__init__()
        self.stem = nn.Sequential(_conv(3, c, 3, 2), _conv(c, c, 3, 2), _layer(c, c, 2))
        self.low = nn.ModuleList([_layer(c, 2 * c, 2, 2), _layer(2 * c, 4 * c, 2, 2), _layer(4 * c, 8 * c, 2, 2),
                                  _layer(8 * c, 8 * c, 1, 2, True)])  # fmt: skip
        self.high = nn.ModuleList([_layer(2 * c, 2 * c, 2), _layer(2 * c, 2 * c, 2), _layer(2 * c, 2 * c, 1, 1, True)])
        self.squeeze = nn.ModuleList([Conv(4 * c, 2 * c, act=None), Conv(8 * c, 2 * c, act=None)])
        self.down = nn.ModuleList([
            Conv(2 * c, 4 * c, 3, 2, act=None),
            nn.Sequential(_conv(2 * c, 4 * c, 3, 2), Conv(4 * c, 8 * c, 3, 2, act=None)),
        ])  # fmt: skip
        self.ppm, self.head = _Ppm(16 * c, 128, 4 * c, False), _seg_head(4 * c, 64, 19)

    def forward(self, x):
        x = self.low[0](self.stem(x))
        high = x
        for i in (0, 1):
            x, high = self.low[i + 1](x), self.high[i](high)
            x, high = x + self.down[i](high), high + _to(self.squeeze[i](x), high)
            x, high = x.relu(), high.relu()
        return self.head(_to(self.ppm(self.low[3](x)), high) + self.high[2](high))


class _Pag(nn.Module):
    def __init__(self, a, middle):
        super().__init__()
        self.one, self.two = Conv(a, middle, act=None), Conv(a, middle, act=None)

    def forward(self, x, y):
        gate = (self.one(x) * _to(self.two(y), x)).sum(1, keepdim=True).sigmoid()
        return (1 - gate) * x + gate * _to(y, x)


class PIDNet(nn.Module):
    """PIDNet-S (Xu et al. 2023) without its auxiliary heads."""

    def __init__(self, c=32):
        super().__init__()
        self.stem = nn.Sequential(_conv(3, c, 3, 2), _conv(c, c, 3, 2), _layer(c, c, 2), _layer(c, 2 * c, 2, 2))
        self.low = nn.ModuleList(
            [_layer(2 * c, 4 * c, 3, 2), _layer(4 * c, 8 * c, 3, 2), _layer(8 * c, 8 * c, 2, 2, True)]
        )
        self.high = nn.ModuleList([_layer(2 * c, 2 * c, 2), _layer(2 * c, 2 * c, 2), _layer(2 * c, 2 * c, 1, 1, True)])
        self.edge = nn.ModuleList([_layer(2 * c, c, 1), _layer(c, c, 1, 1, True), _layer(2 * c, 2 * c, 1, 1, True)])
        self.diff = nn.ModuleList([Conv(4 * c, c, 3, act=None), Conv(8 * c, 2 * c, 3, act=None)])
        self.squeeze = nn.ModuleList([Conv(4 * c, 2 * c, act=None), Conv(8 * c, 2 * c, act=None)])
        self.pag = nn.ModuleList([_Pag(2 * c, c), _Pag(2 * c, c)])
        self.ppm, self.head = _Ppm(16 * c, 96, 4 * c, True), _seg_head(4 * c, 128, 19)
        self.bag = nn.ModuleList([Conv(4 * c, 4 * c, act=None), Conv(4 * c, 4 * c, act=None)])

    def forward(self, x):
        x = self.stem(x)
        high = edge = x
        for i in (0, 1):
            x = self.low[i](x)
            high, edge = self.high[i](high), self.edge[i](edge)
            high = self.pag[i](high, self.squeeze[i](x)).relu()
            edge = (edge + _to(self.diff[i](x), edge)).relu()
        high, edge = self.high[2](high), self.edge[2](edge)
        x = _to(self.ppm(self.low[2](x)), edge)
        gate = edge.sigmoid()
        return self.head(self.bag[0]((1 - gate) * x + high) + self.bag[1](x + gate * high))
