"""Older detectors, LiDAR and MediaPipe networks of the AI Hub table, by hand from their papers."""

# ruff: noqa: D102 - forward says what its class does
from __future__ import annotations

from itertools import pairwise

import torch
from cost_model_faces import _Basic
from cost_model_yolo import Conv, _Anchors, _leaky
from torch import nn
from torch.nn.functional import interpolate, pad


class _Dark(nn.Module):
    def __init__(self, c, act=_leaky):
        super().__init__()
        self.body = nn.Sequential(Conv(c, c // 2, act=act), Conv(c // 2, c, 3, act=act))

    def forward(self, x):
        return x + self.body(x)


class Yolo3(nn.Module):
    """YOLOv3 on Darknet-53 (Redmon and Farhadi 2018) with its decoding."""

    def __init__(self):
        super().__init__()

        def stage(a, b, n):
            return nn.Sequential(Conv(a, b, 3, 2, act=_leaky), *(_Dark(b) for _ in range(n)))

        def five(a, b):
            steps = [(a, b, 1), (b, 2 * b, 3), (2 * b, b, 1), (b, 2 * b, 3), (2 * b, b, 1)]
            return nn.Sequential(*(Conv(x, y, k, act=_leaky) for x, y, k in steps))

        self.stem = nn.Sequential(Conv(3, 32, 3, act=_leaky), stage(32, 64, 1), stage(64, 128, 2), stage(128, 256, 8))
        self.four, self.five = stage(256, 512, 8), stage(512, 1024, 4)
        self.necks = nn.ModuleList([five(1024, 512), five(768, 256), five(384, 128)])
        self.side = nn.ModuleList([Conv(512, 256, act=_leaky), Conv(256, 128, act=_leaky)])
        self.out = nn.ModuleList(Conv(c, 2 * c, 3, act=_leaky) for c in (512, 256, 128))
        self.head = _Anchors((1024, 512, 256), 85)

    def forward(self, x):
        three = self.stem(x)
        four = self.four(three)
        neck, found = self.necks[0](self.five(four)), []
        for i, skip in enumerate((four, three, None)):
            found.append(self.out[i](neck))
            if skip is not None:
                risen = interpolate(self.side[i](neck), scale_factor=2.0, mode="nearest")
                neck = self.necks[i + 1](torch.cat([risen, skip], 1))
        return self.head(found)


class DeepBox(nn.Module):
    """VGG-19-BN features and three heads for orientation, confidence and size."""

    def __init__(self):
        super().__init__()
        import torchvision.models as models

        self.features = models.vgg19_bn(weights=None).features

        def head(width, outputs):
            return nn.Sequential(nn.Linear(512 * 49, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                                 nn.Linear(width, outputs))  # fmt: skip

        self.orient, self.confidence, self.size = head(256, 4), head(256, 2), head(512, 3)

    def forward(self, x):
        x = self.features(x.flip(1)).flatten(1)
        turn = self.orient(x).view(-1, 2, 2)
        return turn / turn.norm(dim=2, keepdim=True), self.confidence(x), self.size(x)


class Ssd(nn.Module):
    """SSD on ResNet-34 at 1200 x 1200, MLPerf Inference's large detector, up to its scores."""

    def __init__(self):
        super().__init__()
        import torchvision.models as models

        net = models.resnet34(weights=None)
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2,
                                  *(_Basic(128 if i == 0 else 256, 256, 1) for i in range(6)))  # fmt: skip
        plan = (
            (256, 256, 512, 2, 1),
            (512, 256, 512, 2, 1),
            (512, 128, 256, 2, 1),
            (256, 128, 256, 2, 0),
            (256, 128, 256, 1, 0),
        )
        self.extra = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, m, 1), nn.ReLU(), nn.Conv2d(m, b, 3, s, p), nn.ReLU()) for a, m, b, s, p in plan
        )
        widths, counts, strides = (256, 512, 512, 256, 256, 256), (4, 6, 6, 6, 4, 4), (3, 3, 2, 2, 2, 2)
        self.boxes = nn.ModuleList(
            nn.Conv2d(c, n * 4, 3, s, 1) for c, n, s in zip(widths, counts, strides, strict=True)
        )
        self.scores = nn.ModuleList(
            nn.Conv2d(c, n * 81, 3, s, 1) for c, n, s in zip(widths, counts, strides, strict=True)
        )

    def forward(self, x):
        x = self.stem(x)
        features = [x]
        for extra in self.extra:
            x = extra(x)
            features.append(x)
        boxes = torch.cat([conv(item).view(1, 4, -1) for conv, item in zip(self.boxes, features, strict=True)], 2)
        scores = torch.cat([conv(item).view(1, 81, -1) for conv, item in zip(self.scores, features, strict=True)], 2)
        best, label = scores.transpose(1, 2).softmax(-1)[..., 1:].max(-1)
        boxes = boxes.transpose(1, 2)
        middle, wide = boxes[..., :2] * 0.1, (boxes[..., 2:] * 0.2).exp()
        return torch.cat([middle - wide / 2, middle + wide / 2], -1), best, label


class Craft(nn.Module):
    """CRAFT text detector: VGG-16-BN and a U-shaped head (Baek et al. 2019)."""

    def __init__(self):
        super().__init__()
        import torchvision.models as models

        layers = models.vgg16_bn(weights=None).features
        self.slices = nn.ModuleList([layers[:12], layers[12:19], layers[19:29], layers[29:39]])
        self.last = nn.Sequential(
            nn.MaxPool2d(3, 1, 1), nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.Conv2d(1024, 1024, 1)
        )

        def up(a, m, b):
            return nn.Sequential(nn.Conv2d(a + m, m, 1), nn.BatchNorm2d(m), nn.ReLU(), nn.Conv2d(m, b, 3, padding=1),
                                 nn.BatchNorm2d(b), nn.ReLU())  # fmt: skip

        self.up = nn.ModuleList([up(1024, 512, 256), up(512, 256, 128), up(256, 128, 64), up(128, 64, 32)])
        self.head = nn.Sequential(
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 2, 1),
        )  # fmt: skip

    def forward(self, x):
        features = []
        for part in self.slices:
            x = part(x)
            features.append(x)
        x = self.up[0](torch.cat([self.last(x), features[3]], 1))
        for up, side in zip(self.up[1:], features[2::-1], strict=True):
            x = up(torch.cat([interpolate(x, size=side.shape[-2:], mode="bilinear"), side], 1))
        return self.head(x).permute(0, 2, 3, 1)


class RangeNet(nn.Module):
    """RangeNet++ with Darknet-53 (Milioto et al. 2019): widths of a LiDAR sweep are halved, heights kept."""

    def __init__(self):
        super().__init__()

        def act():
            return nn.LeakyReLU(0.1)

        def conv(a, b, k, s=1):
            return nn.Sequential(nn.Conv2d(a, b, k, (1, s), k // 2, bias=False), nn.BatchNorm2d(b), act())

        def rise(a, b):
            return nn.Sequential(
                nn.ConvTranspose2d(a, b, (1, 4), (1, 2), (0, 1)), nn.BatchNorm2d(b), act(), _Dark2(b, a)
            )

        self.first = conv(5, 32, 3)
        widths = (32, 64, 128, 256, 512, 1024)
        self.down = nn.ModuleList(
            nn.Sequential(conv(a, b, 3, 2), *(_Dark(b) for _ in range(n)))
            for (a, b), n in zip(pairwise(widths), (1, 2, 8, 8, 4), strict=True)
        )
        self.up = nn.ModuleList(rise(b, a) for a, b in zip(widths[-2::-1], widths[:0:-1], strict=True))
        self.head = nn.Conv2d(32, 20, 3, padding=1)

    def forward(self, x):
        x = self.first(x)
        kept = [x]
        for step in self.down:
            x = step(x)
            kept.append(x)
        kept.pop()
        for step in self.up:
            x = step(x) + kept.pop()
        return self.head(x).softmax(1)


class _Dark2(nn.Module):
    """RangeNet's decoder block: down to ``a`` channels and back."""

    def __init__(self, c, a):
        super().__init__()
        self.body = nn.Sequential(Conv(c, a, act=_leaky), Conv(a, c, 3, act=_leaky))

    def forward(self, x):
        return x + self.body(x)


class _Blaze(nn.Module):
    def __init__(self, a, b, k, s=1, prelu=False):
        super().__init__()
        self.s, self.extra = s, b - a
        self.body = nn.Sequential(nn.Conv2d(a, a, k, s, 0 if s == 2 else k // 2, groups=a), nn.Conv2d(a, b, 1))
        self.pool, self.act, self.k = nn.MaxPool2d(2), nn.PReLU(b) if prelu else nn.ReLU(), k

    def forward(self, x):
        h = x
        if self.s == 2:
            h = pad(x, (0, 2, 0, 2) if self.k == 3 else (1, 2, 1, 2))
            x = self.pool(x)
        if self.extra:
            x = pad(x, (0, 0, 0, 0, 0, self.extra))
        return self.act(self.body(h) + x)


class BlazeFace(nn.Module):
    """MediaPipe's back-camera face detector, 256 x 256."""

    def __init__(self):
        super().__init__()
        parts = [nn.Conv2d(3, 24, 5, 2), nn.ReLU()]
        for a, b, n in ((24, 24, 7), (24, 24, 7), (24, 48, 7), (48, 96, 7)):
            first = len(parts) == 2
            parts += [] if first else [_Blaze(a, b, 3, 2)]
            parts += [_Blaze(b, b, 3) for _ in range(n)]
        self.body = nn.Sequential(*parts)
        self.deep = nn.Sequential(nn.Conv2d(96, 96, 3, 2, groups=96), nn.Conv2d(96, 96, 1), nn.ReLU())
        self.heads = nn.ModuleList(nn.Conv2d(96, n, 1) for n in (2, 6, 32, 96))

    def forward(self, x):
        x = self.body(pad(x, (1, 2, 1, 2)))
        deep = self.deep(pad(x, (0, 2, 0, 2)))
        found = [head(item).permute(0, 2, 3, 1) for head, item in zip(self.heads, (x, deep, x, deep), strict=True)]
        return (found[2].reshape(1, -1, 16), found[3].reshape(1, -1, 16), found[0].reshape(1, -1, 1),
                found[1].reshape(1, -1, 1))  # fmt: skip


class FaceMesh(nn.Module):
    """MediaPipe's face landmarks, 192 x 192."""

    def __init__(self):
        super().__init__()
        parts = [nn.Conv2d(3, 16, 3, 2), nn.PReLU(16)]
        for a, b in ((16, 32), (32, 64), (64, 128), (128, 128)):
            parts += [_Blaze(a, a, 3, prelu=True), _Blaze(a, a, 3, prelu=True), _Blaze(a, b, 3, 2, prelu=True)]
        self.body = nn.Sequential(*parts, *(_Blaze(128, 128, 3, prelu=True) for _ in range(2)))

        def head(n, outputs):
            return nn.Sequential(
                _Blaze(128, 128, 3, 2, prelu=True), *(_Blaze(128, 128, 3, prelu=True) for _ in range(n)),
                nn.Conv2d(128, 32, 1), nn.PReLU(32), _Blaze(32, 32, 3, prelu=True), nn.Conv2d(32, outputs, 3),
            )  # fmt: skip

        self.points, self.flag = head(2, 1404), head(0, 1)

    def forward(self, x):
        x = self.body(pad(x, (0, 1, 0, 1)))
        return self.flag(x).sigmoid().view(-1), self.points(x).view(-1, 468, 3) / 192


class PointNet(nn.Module):
    """PointNet (Qi et al. 2017) with both transforms, 1024 points, 10 classes."""

    def __init__(self, classes=10):
        super().__init__()

        def line(*sizes):
            parts = []
            for a, b in pairwise(sizes):
                parts += [nn.Conv1d(a, b, 1), nn.BatchNorm1d(b), nn.ReLU()]
            return nn.Sequential(*parts)

        def turn(k):
            dense = nn.Sequential(
                nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, k * k)
            )
            return nn.ModuleList([line(k, 64, 128, 1024), dense])

        self.turns = nn.ModuleList([turn(3), turn(64)])
        self.one, self.two, self.three = line(3, 64), line(64, 128), line(128, 1024)[:2]
        self.head = nn.Sequential(
            nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, classes)
        )

    def forward(self, x):
        for (net, dense), after in zip(self.turns, (self.one, self.two), strict=True):
            k = x.shape[1]
            matrix = dense(net(x).max(-1)[0]).view(1, k, k)
            x = after((x.transpose(1, 2) @ matrix).transpose(1, 2))
        return self.head(self.three(x).max(-1)[0]).log_softmax(1)
