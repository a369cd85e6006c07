"""Dense prediction networks of the AI Hub table, by hand from their papers: segmentation, key points, depth."""

# ruff: noqa: D102 - forward says what its class does
from __future__ import annotations

import torch
from cost_model_faces import _Basic
from cost_model_yolo import Conv
from torch import nn
from torch.nn.functional import interpolate

_RELU = nn.ReLU


def _conv(a, b, k=1, s=1, **options):
    return Conv(a, b, k, s, act=_RELU, **options)


def _to(x, like, mode="bilinear"):
    return interpolate(x, size=like.shape[-2:], mode=mode)


class FFNet(nn.Module):
    """FFNet (Mehta et al. 2022): a ResNet of basic blocks, a top-down path with nearest resizes, a small head."""

    def __init__(self, counts, widths, *, stem, first, head):
        super().__init__()
        self.stem = nn.ModuleList([nn.Sequential(*stem)])
        last = stem[-1][0].out_channels
        for index, (count, width) in enumerate(zip(counts, widths, strict=True)):
            s = first if index == 0 else 2
            self.stem.append(nn.Sequential(*(_Basic(last if i == 0 else width, width, s if i == 0 else 1)
                                             for i in range(count))))  # fmt: skip
            last = width
        features = ([stem[-1][0].out_channels] if len(counts) == 3 else []) + list(widths)
        self.three = len(counts) == 3
        base, out, middle, k = (
            ((64, 128, 128, 256), (96, 96, 64, 32), 256, 3) if head == "B" else ((128,) * 4, (128, 16, 16, 16), 128, 1)
        )
        self.adapt = nn.ModuleList(_conv(a, b) for a, b in zip(features, base, strict=True))
        self.smooth = nn.ModuleList(_conv(a, b, 3) for a, b in zip(base, out, strict=True))
        self.rise = nn.ModuleList(_conv(base[i + 1], base[i]) for i in range(3))
        self.head = nn.Sequential(
            nn.Conv2d(sum(out), middle, k, padding=k // 2), nn.BatchNorm2d(middle), nn.ReLU(),
            nn.Conv2d(middle, 19, k, padding=k // 2),
        )  # fmt: skip

    def forward(self, x):
        features = []
        for index, stage in enumerate(self.stem):
            x = stage(x)
            if index or self.three:
                features.append(x)
        features = [adapt(x) for adapt, x in zip(self.adapt, features, strict=True)]
        x, smooth = features[3], [self.smooth[3](features[3])]
        for i in (2, 1, 0):
            x = _to(self.rise[i](x), features[i], "nearest") + features[i]
            smooth.insert(0, self.smooth[i](x))
        x = smooth[0]
        for item in smooth[1:]:
            x = torch.cat([x, _to(item, x, "nearest")], 1)
        return self.head(x)


def ffnet(counts, *, head="B", first=2):
    """FFNet-S: slim widths."""
    return FFNet(counts, (64, 128, 192, 320), stem=[_conv(3, 32, 3, 2), _conv(32, 64, 3, 2)], first=first, head=head)


def ffnet_narrow():
    """FFNet-122NS of three stages."""
    stem = [_conv(3, 64, 3, 2), _conv(64, 64, 3, 2), _conv(64, 64, 3)]
    return FFNet((16, 24, 20), (64, 128, 256), stem=stem, first=2, head="C")


class _Fuse(nn.Module):
    """HRNet's exchange between resolutions; ``outputs`` resolutions leave."""

    def __init__(self, widths, outputs, mode):
        super().__init__()
        self.mode = mode
        self.rows = nn.ModuleList()
        for i in range(outputs):
            row = nn.ModuleList()
            for j, c in enumerate(widths):
                if j > i:
                    row.append(Conv(c, widths[i], act=None))
                elif j == i:
                    row.append(nn.Identity())
                else:
                    steps = [_conv(c, c, 3, 2) for _ in range(i - j - 1)]
                    row.append(nn.Sequential(*steps, Conv(c, widths[i], 3, 2, act=None)))
            self.rows.append(row)

    def forward(self, features):
        found = []
        for i, row in enumerate(self.rows):
            parts = []
            for j, (step, x) in enumerate(zip(row, features, strict=True)):
                part = step(x)
                parts.append(_to(part, features[i], self.mode) if j > i else part)
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            found.append(total.relu())
        return found


class _Bottle(nn.Module):
    def __init__(self, a, width, b, s=1, dilation=1, short=None):
        super().__init__()
        self.body = nn.Sequential(
            _conv(a, width), _conv(width, width, 3, s, dilation=dilation), Conv(width, b, act=None)
        )
        needs = a != b or s > 1 if short is None else short
        self.short = Conv(a, b, 1, s, act=None) if needs else nn.Identity()

    def forward(self, x):
        return (self.body(x) + self.short(x)).relu()


class HRNet(nn.Module):
    """HRNet (Wang et al. 2019): ``points`` heat maps from the highest resolution, or from all of them joined."""

    def __init__(self, width, points, *, joined, mode):
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 64, 3, 2), _conv(64, 64, 3, 2))
        self.first = nn.Sequential(_Bottle(64, 64, 256), *(_Bottle(256, 64, 256) for _ in range(3)))
        widths = [width << i for i in range(4)]
        self.turn = nn.ModuleList(
            nn.ModuleList([_conv(256, widths[0], 3), _conv(256, widths[1], 3, 2)]) if n == 1
            else nn.ModuleList([_conv(widths[n - 1], widths[n], 3, 2)])
            for n in (1, 2, 3)
        )  # fmt: skip
        self.stages = nn.ModuleList()
        for n, modules in ((2, 1), (3, 4), (4, 3)):
            stage = nn.ModuleList()
            for index in range(modules):
                last = n == 4 and index == modules - 1 and not joined
                branches = nn.ModuleList(nn.Sequential(*(_Basic(c, c, 1) for _ in range(4))) for c in widths[:n])
                stage.append(nn.ModuleList([branches, _Fuse(widths[:n], 1 if last else n, mode)]))
            self.stages.append(stage)
        total = sum(widths)
        self.joined, self.mode = joined, mode
        self.head = (
            nn.Sequential(nn.Conv2d(total, total, 1), nn.BatchNorm2d(total), nn.ReLU(), nn.Conv2d(total, points, 1))
            if joined
            else nn.Conv2d(width, points, 1)
        )

    def forward(self, x):
        x = self.first(self.stem(x))
        features = [step(x) for step in self.turn[0]]
        for n, stage in enumerate(self.stages):
            if n:
                features = [*features, self.turn[n][0](features[-1])]
            for branches, fuse in stage:
                features = fuse([branch(item) for branch, item in zip(branches, features, strict=True)])
        if not self.joined:
            return self.head(features[0])
        return self.head(torch.cat([features[0], *(_to(item, features[0]) for item in features[1:])], 1))


class _Inverted(nn.Module):
    def __init__(self, a, b, s, expand, dilation=1):
        super().__init__()
        hidden = a * expand
        body = [Conv(a, hidden, act=nn.ReLU6)] if expand > 1 else []
        body += [Conv(hidden, hidden, 3, s, groups=hidden, act=nn.ReLU6, dilation=dilation), Conv(hidden, b, act=None)]
        self.body, self.adds = nn.Sequential(*body), s == 1 and a == b

    def forward(self, x):
        return x + self.body(x) if self.adds else self.body(x)


class DeepLabMobile(nn.Module):
    """DeepLabV3+ on MobileNetV2 at output stride 16 (Chen et al. 2018)."""

    def __init__(self, classes=21):
        super().__init__()
        plan = (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 1),
            (6, 320, 1, 1),
        )
        parts, a, self.low = [Conv(3, 32, 3, 2, act=nn.ReLU6)], 32, 4
        for index, (t, c, n, s) in enumerate(plan):
            for i in range(n):
                parts.append(_Inverted(a, c, s if i == 0 else 1, t, 2 if index > 4 else 1))
                a = c
        self.body = nn.ModuleList(parts)
        self.aspp = nn.ModuleList([_conv(320, 256), *(_conv(320, 256, 3, dilation=d) for d in (6, 12, 18))])
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), _conv(320, 256))
        self.merge, self.side = _conv(1280, 256), _conv(24, 48)
        self.last = nn.Sequential(_conv(304, 256, 3), _conv(256, 256, 3), nn.Conv2d(256, classes, 1))

    def forward(self, x):
        image = x
        for index, layer in enumerate(self.body):
            x = layer(x)
            if index == 3:
                low = x
        x = self.merge(torch.cat([*(branch(x) for branch in self.aspp), _to(self.pool(x), x)], 1))
        x = self.last(torch.cat([_to(x, low), self.side(low)], 1))
        return _to(x, image).argmax(1)


class PspNet(nn.Module):
    """PSPNet on a dilated ResNet-101 with a deep stem, for the image and its mirror image."""

    def __init__(self, classes=150):
        super().__init__()
        parts = [_conv(3, 64, 3, 2), _conv(64, 64, 3), _conv(64, 128, 3), nn.MaxPool2d(3, 2, 1)]
        a = 128
        for width, count, s, d in ((64, 3, 1, 1), (128, 4, 2, 1), (256, 23, 1, 2), (512, 3, 1, 4)):
            for i in range(count):
                parts.append(_Bottle(a, width, width * 4, s if i == 0 else 1, d))
                a = width * 4
        self.body = nn.Sequential(*parts)
        self.pools = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(n), _conv(2048, 512)) for n in (1, 2, 3, 6))
        self.head = nn.Sequential(_conv(4096, 512, 3), nn.Conv2d(512, classes, 1))

    def forward(self, x):
        both = torch.cat([x, x.flip(3)], 0)
        deep = self.body(both)
        found = self.head(torch.cat([deep, *(_to(pool(deep), deep) for pool in self.pools)], 1))
        found = _to(found, both).softmax(1)
        return (found[0] + found[1].flip(2)) / 2


class _Rsu(nn.Module):
    """U2-Net's residual U-block; depth 0 is the dilated one without pooling (Qin et al. 2020)."""

    def __init__(self, depth, a, middle, b):
        super().__init__()
        self.first = _biased(a, b)
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.flat = depth == 0
        count = depth or 4
        rates = (1, 2, 4, 8) if self.flat else (*(1,) * (count - 1), 2)
        self.down = nn.ModuleList(_biased(b if i == 0 else middle, middle, rates[i]) for i in range(count))
        rises = rates[count - 2 :: -1]
        self.up = nn.ModuleList(
            _biased(2 * middle, b if i == count - 2 else middle, rises[i] if self.flat else 1) for i in range(count - 1)
        )

    def forward(self, x):
        first = self.first(x)
        features, x = [], first
        for index, layer in enumerate(self.down):
            pooled = not self.flat and 0 < index < len(self.down) - 1
            x = layer(self.pool(x) if pooled else x)
            features.append(x)
        for layer, side in zip(self.up, features[-2::-1], strict=True):
            x = layer(torch.cat([x if x.shape == side.shape else _to(x, side), side], 1))
        return x + first


def _biased(a, b, dilation=1):
    return nn.Sequential(nn.Conv2d(a, b, 3, 1, dilation, dilation), nn.BatchNorm2d(b), nn.ReLU())


class U2Net(nn.Module):
    """U2-Net with its six side outputs, the fused one returned."""

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList(_Rsu(*row) for row in (
            (7, 3, 32, 64), (6, 64, 32, 128), (5, 128, 64, 256), (4, 256, 128, 512), (0, 512, 256, 512),
            (0, 512, 256, 512),
        ))  # fmt: skip
        self.up = nn.ModuleList(_Rsu(*row) for row in (
            (0, 1024, 256, 512), (4, 1024, 128, 256), (5, 512, 64, 128), (6, 256, 32, 64), (7, 128, 16, 64),
        ))  # fmt: skip
        self.sides = nn.ModuleList(nn.Conv2d(c, 1, 3, 1, 1) for c in (64, 64, 128, 256, 512, 512))
        self.pool, self.last = nn.MaxPool2d(2, 2, ceil_mode=True), nn.Conv2d(6, 1, 1)

    def forward(self, x):
        image, features = x, []
        for index, layer in enumerate(self.down):
            x = layer(self.pool(x) if index else x)
            features.append(x)
        rising = [x]
        for layer, side in zip(self.up, features[-2::-1], strict=True):
            x = layer(torch.cat([_to(x, side), side], 1))
            rising.append(x)
        maps = [side(x) for side, x in zip(self.sides, rising[::-1], strict=True)]
        return self.last(torch.cat([maps[0], *(_to(item, image) for item in maps[1:])], 1)).sigmoid()


class _Residual(nn.Module):
    """MiDaS' residual unit of two biased convolutions."""

    def __init__(self, c):
        super().__init__()
        self.one, self.two = nn.Conv2d(c, c, 3, 1, 1), nn.Conv2d(c, c, 3, 1, 1)

    def forward(self, x):
        x = x.relu()
        return self.two(self.one(x).relu()) + x


class Midas(nn.Module):
    """MiDaS v2.1 small: EfficientNet-Lite3 and four fusion blocks that halve their channels (Ranftl et al. 2020)."""

    def __init__(self):
        super().__init__()
        import timm

        net = timm.create_model("tf_efficientnet_lite3", pretrained=False)
        self.stem = nn.Sequential(net.conv_stem, net.bn1)
        self.stages = nn.ModuleList([net.blocks[:2], net.blocks[2:3], net.blocks[3:5], net.blocks[5:]])
        widths = (64, 128, 256, 512)
        self.side = nn.ModuleList(
            nn.Conv2d(a, b, 3, 1, 1, bias=False) for a, b in zip((32, 48, 136, 384), widths, strict=True)
        )
        self.near = nn.ModuleList(_Residual(c) for c in widths[:3])
        self.far = nn.ModuleList(_Residual(c) for c in widths)
        self.out = nn.ModuleList(nn.Conv2d(c, max(64, c // 2), 1) for c in widths)
        self.last = nn.Sequential(
            nn.Conv2d(64, 32, 3, 1, 1), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(32, 32, 3, 1, 1),
            nn.ReLU(), nn.Conv2d(32, 1, 1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x):
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        features = [side(item) for side, item in zip(self.side, features, strict=True)]
        x = None
        for i in (3, 2, 1, 0):
            x = features[i] if x is None else x + self.near[i](features[i])
            x = self.far[i](x)
            x = self.out[i](interpolate(x, scale_factor=2.0, mode="bilinear"))
        return self.last(x)
