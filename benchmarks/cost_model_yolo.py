"""One-stage detectors of the AI Hub table, written from their papers' layer tables: YOLOv4-tiny to YOLO11, YOLOX.

Box decoding and the class maximum are part of the networks that AI Hub measured, non-maximum suppression is not.
"""

from __future__ import annotations

import torch
from torch import nn


class Conv(nn.Sequential):
    """Convolution, batch norm, activation."""

    def __init__(self, a, b, k=1, s=1, groups=1, act=nn.SiLU, dilation=1):
        parts = [nn.Conv2d(a, b, k, s, k // 2 * dilation, dilation, groups, bias=False), nn.BatchNorm2d(b)]
        super().__init__(*parts, *([act()] if act else []))


class _Bottleneck(nn.Module):
    def __init__(self, a, b, short=True, kernels=(3, 3), shrink=1.0, act=nn.SiLU):
        super().__init__()
        self.body = nn.Sequential(
            Conv(a, int(b * shrink), kernels[0], act=act), Conv(int(b * shrink), b, kernels[1], act=act)
        )
        self.short = short and a == b

    def forward(self, x):
        return x + self.body(x) if self.short else self.body(x)


class _C3(nn.Module):
    def __init__(self, a, b, count=1, short=True, kernels=(1, 3), half=0.5):
        super().__init__()
        hidden = int(b * half)
        self.one, self.two, self.last = Conv(a, hidden), Conv(a, hidden), Conv(2 * hidden, b)
        self.body = nn.Sequential(*(_Bottleneck(hidden, hidden, short, kernels) for _ in range(count)))

    def forward(self, x):
        return self.last(torch.cat([self.body(self.one(x)), self.two(x)], 1))


class _C2f(nn.Module):
    """YOLOv8's block; ``unit`` builds what it repeats, so that YOLOv10's and YOLO11's are the same class."""

    def __init__(self, a, b, count=1, short=False, unit=None, half=0.5):
        super().__init__()
        hidden = int(b * half)
        unit = unit or (lambda c: _Bottleneck(c, c, short))
        self.first, self.last = Conv(a, 2 * hidden), Conv((2 + count) * hidden, b)
        self.body = nn.ModuleList(unit(hidden) for _ in range(count))

    def forward(self, x):
        parts = list(self.first(x).chunk(2, 1))
        for block in self.body:
            parts.append(block(parts[-1]))
        return self.last(torch.cat(parts, 1))


class _Sppf(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.first, self.last, self.pool = Conv(a, a // 2), Conv(a * 2, b), nn.MaxPool2d(5, 1, 2)

    def forward(self, x):
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.last(torch.cat(parts, 1))


class _Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.qkv, self.out = Conv(width, 2 * width, act=None), Conv(width, width, act=None)
        self.place = Conv(width, width, 3, groups=width, act=None)

    def forward(self, x):
        b, c, h, w = x.shape
        q, k, v = self.qkv(x).view(b, self.heads, self.size * 2, h * w).split(
            [self.size // 2, self.size // 2, self.size], 2
        )  # fmt: skip
        mixed = ((q.transpose(-2, -1) @ k) * self.size**-0.5).softmax(-1)
        return self.out((v @ mixed.transpose(-2, -1)).view(b, c, h, w) + self.place(v.reshape(b, c, h, w)))


class _Psa(nn.Module):
    """Partial self-attention of YOLOv10 and YOLO11."""

    def __init__(self, a, count=1):
        super().__init__()
        half = a // 2
        self.first, self.last = Conv(a, a), Conv(a, a)
        self.body = nn.ModuleList(
            nn.ModuleList([
                _Attention(half, half // 64), nn.Sequential(Conv(half, 2 * half), Conv(2 * half, half, act=None))
            ])
            for _ in range(count)
        )  # fmt: skip

    def forward(self, x):
        kept, x = self.first(x).chunk(2, 1)
        for attention, dense in self.body:
            x = x + attention(x)
            x = x + dense(x)
        return self.last(torch.cat([kept, x], 1))


class _Cib(nn.Module):
    def __init__(self, c, large):
        super().__init__()
        middle = [Conv(2 * c, 2 * c, 7 if large else 3, groups=2 * c)]
        self.body = nn.Sequential(
            Conv(c, c, 3, groups=c), Conv(c, 2 * c), *middle, Conv(2 * c, c), Conv(c, c, 3, groups=c)
        )

    def forward(self, x):
        return x + self.body(x)


def _down(a, b):
    return nn.Sequential(Conv(a, b), Conv(b, b, 3, 2, groups=b, act=None))


class _Head(nn.Module):
    """Decoupled boxes (distribution focal loss) and classes; extra branches for masks, keypoints or angles."""

    def __init__(self, channels, classes, *, light=False, extra=0, proto=0, size=640, best=True):
        super().__init__()
        boxes, scores = max(16, channels[0] // 4, 64), max(channels[0], min(classes, 100))
        branch = max(channels[0] // 4, extra)

        def score(c):
            if light:
                return [Conv(c, c, 3, groups=c), Conv(c, scores), Conv(scores, scores, 3, groups=scores),
                        Conv(scores, scores)]  # fmt: skip
            return [Conv(c, scores, 3), Conv(scores, scores, 3)]

        self.boxes = nn.ModuleList(
            nn.Sequential(Conv(c, boxes, 3), Conv(boxes, boxes, 3), nn.Conv2d(boxes, 64, 1)) for c in channels
        )
        self.scores = nn.ModuleList(nn.Sequential(*score(c), nn.Conv2d(scores, classes, 1)) for c in channels)
        self.extra = nn.ModuleList(
            nn.Sequential(Conv(c, branch, 3), Conv(branch, branch, 3), nn.Conv2d(branch, extra, 1))
            for c in (channels if extra else ())
        )
        self.proto = None
        if proto:
            self.proto = nn.Sequential(
                Conv(channels[0], proto, 3), nn.ConvTranspose2d(proto, proto, 2, 2), Conv(proto, proto, 3),
                Conv(proto, 32),
            )  # fmt: skip
        self.classes, self.best = classes, best
        anchors = sum((size // s) ** 2 for s in (8, 16, 32))
        self.register_buffer("points", torch.zeros(1, 2, anchors))
        self.register_buffer("strides", torch.zeros(1, anchors))
        self.project = nn.Conv2d(16, 1, 1, bias=False)

    @staticmethod
    def _flat(features, branches):
        return torch.cat([branch(x).flatten(2) for x, branch in zip(features, branches, strict=True)], 2)

    def forward(self, features):
        boxes = self._flat(features, self.boxes)
        scores = self._flat(features, self.scores).sigmoid()
        spread = boxes.view(1, 4, 16, -1).transpose(2, 1).softmax(1)
        near, far = self.project(spread).view(1, 4, -1).chunk(2, 1)
        low, high = self.points - near, self.points + far
        found = [torch.cat([(low + high) / 2, high - low], 1) * self.strides]
        if self.best:
            found += [*scores.transpose(1, 2).max(-1)]
            middle, wide = found[0].transpose(1, 2).split(2, -1)
            found[0] = torch.cat([middle - wide / 2, middle + wide / 2], -1)
        else:
            found.append(scores)
        if len(self.extra):
            found.append(self._flat(features, self.extra))
        if self.proto is not None:
            found.append(self.proto(features[0]))
        return tuple(found)


class _Chain(nn.Module):
    """Layers with the indices they read from: -1 is the one before."""

    def __init__(self, steps):
        super().__init__()
        self.sources = [source for source, _ in steps]
        self.layers = nn.ModuleList(layer for _, layer in steps)

    def forward(self, x):
        kept = []
        for source, layer in zip(self.sources, self.layers, strict=True):
            if isinstance(source, tuple):
                x = layer([kept[index] for index in source])
            else:
                x = layer(x if source == -1 else kept[source])
            kept.append(x)
        return x


class _Concat(nn.Module):
    def forward(self, parts):
        return torch.cat(parts, 1)


def _up():
    return nn.Upsample(scale_factor=2, mode="nearest")


def _yolo8_size(scale):
    depth, width, top = {"n": (1 / 3, 0.25, 1024), "s": (1 / 3, 0.5, 1024), "x": (1, 1.25, 512)}[scale]
    return (lambda c: int(min(c, top) * width)), (lambda count: max(1, round(count * depth)))


def yolo8(scale="n", classes=80, **head):
    """YOLOv8 (and FastSAM, which is YOLOv8-seg with one class)."""
    w, d = _yolo8_size(scale)
    c1, c2, c3, c4, c5 = (w(c) for c in (64, 128, 256, 512, 1024))
    if head.get("proto"):
        head["proto"] = w(256)
    return _Chain([
        (-1, Conv(3, c1, 3, 2)), (-1, Conv(c1, c2, 3, 2)), (-1, _C2f(c2, c2, d(3), True)),
        (-1, Conv(c2, c3, 3, 2)), (-1, _C2f(c3, c3, d(6), True)), (-1, Conv(c3, c4, 3, 2)),
        (-1, _C2f(c4, c4, d(6), True)), (-1, Conv(c4, c5, 3, 2)), (-1, _C2f(c5, c5, d(3), True)), (-1, _Sppf(c5, c5)),
        (-1, _up()), ((10, 6), _Concat()), (-1, _C2f(c5 + c4, c4, d(3))),
        (-1, _up()), ((13, 4), _Concat()), (-1, _C2f(c4 + c3, c3, d(3))),
        (-1, Conv(c3, c3, 3, 2)), ((16, 12), _Concat()), (-1, _C2f(c3 + c4, c4, d(3))),
        (-1, Conv(c4, c4, 3, 2)), ((19, 9), _Concat()), (-1, _C2f(c4 + c5, c5, d(3))),
        ((15, 18, 21), _Head((c3, c4, c5), classes, **head)),
    ])  # fmt: skip


def yolo10():
    """YOLOv10-N with its one-to-many head, as AI Hub exports it."""
    c1, c2, c3, c4, c5 = 16, 32, 64, 128, 256
    return _Chain([
        (-1, Conv(3, c1, 3, 2)), (-1, Conv(c1, c2, 3, 2)), (-1, _C2f(c2, c2, 1, True)),
        (-1, Conv(c2, c3, 3, 2)), (-1, _C2f(c3, c3, 2, True)), (-1, _down(c3, c4)),
        (-1, _C2f(c4, c4, 2, True)), (-1, _down(c4, c5)), (-1, _C2f(c5, c5, 1, True)), (-1, _Sppf(c5, c5)),
        (-1, _Psa(c5)), (-1, _up()), ((11, 6), _Concat()), (-1, _C2f(c5 + c4, c4, 1)),
        (-1, _up()), ((14, 4), _Concat()), (-1, _C2f(c4 + c3, c3, 1)),
        (-1, Conv(c3, c3, 3, 2)), ((17, 13), _Concat()), (-1, _C2f(c3 + c4, c4, 1)),
        (-1, _down(c4, c4)), ((20, 10), _Concat()), (-1, _C2f(c4 + c5, c5, 1, unit=lambda c: _Cib(c, True))),
        ((16, 19, 22), _Head((c3, c4, c5), 80, light=True)),
    ])  # fmt: skip


def _c3k(c):
    return _C3(c, c, 2, kernels=(3, 3))


def yolo11(classes=80, **head):
    """YOLO11-N."""

    def short(c):
        return _Bottleneck(c, c, shrink=0.5)

    c1, c2, c3, c4, c5 = 16, 32, 64, 128, 256
    return _Chain([
        (-1, Conv(3, c1, 3, 2)), (-1, Conv(c1, c2, 3, 2)), (-1, _C2f(c2, c3, 1, unit=short, half=0.25)),
        (-1, Conv(c3, c3, 3, 2)), (-1, _C2f(c3, c4, 1, unit=short, half=0.25)), (-1, Conv(c4, c4, 3, 2)),
        (-1, _C2f(c4, c4, 1, unit=_c3k)), (-1, Conv(c4, c5, 3, 2)), (-1, _C2f(c5, c5, 1, unit=_c3k)),
        (-1, _Sppf(c5, c5)), (-1, _Psa(c5)), (-1, _up()), ((11, 6), _Concat()), (-1, _C2f(c5 + c4, c4, 1, unit=short)),
        (-1, _up()), ((14, 4), _Concat()), (-1, _C2f(c4 + c4, c3, 1, unit=short)),
        (-1, Conv(c3, c3, 3, 2)), ((17, 13), _Concat()), (-1, _C2f(c3 + c4, c4, 1, unit=short)),
        (-1, Conv(c4, c4, 3, 2)), ((20, 10), _Concat()), (-1, _C2f(c4 + c5, c5, 1, unit=_c3k)),
        ((16, 19, 22), _Head((c3, c4, c5), classes, light=True, **head)),
    ])  # fmt: skip


class _Anchors(nn.Module):
    """Anchor heads: one convolution a level, sigmoids, boxes decoded level by level."""

    def __init__(self, channels, outputs, anchors=3, act=True):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, outputs * anchors, 1) for c in channels)
        self.anchors, self.outputs, self.act = anchors, outputs, act

    def forward(self, features):
        places, sizes, scores = [], [], []
        for feature, conv in zip(features, self.convs, strict=True):
            found = conv(feature)
            _, _, h, w = found.shape
            found = found.view(1, self.anchors, self.outputs, h, w).permute(0, 1, 3, 4, 2).sigmoid()
            place, size, score = found.reshape(1, -1, self.outputs).split([2, 2, self.outputs - 4], -1)
            places.append(place * 2 + 1)
            sizes.append(size * size * 4)
            scores.append(score)
        place, size, score = (torch.cat(parts, 1) for parts in (places, sizes, scores))
        low, high = place - size / 2, place + size / 2
        return torch.cat([low, high], -1), *(score[..., 1:] * score[..., :1]).max(-1)


def _leaky():
    return nn.LeakyReLU(0.1)
