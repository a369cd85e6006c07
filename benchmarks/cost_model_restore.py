"""Image restoration, upscaling, LiDAR and older detectors of the AI Hub table, by hand from their papers."""

# ruff: noqa: D102 - forward says what its class does
from __future__ import annotations

import torch
from cost_model_faces import _Basic
from cost_model_yolo import Conv, _leaky
from torch import nn
from torch.nn.functional import interpolate, layer_norm, pad


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
        from cost_model_yolo import _Anchors

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
            for a, b, n in zip(widths, widths[1:], (1, 2, 8, 8, 4), strict=False)
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
            for a, b in zip(sizes, sizes[1:], strict=False):
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
