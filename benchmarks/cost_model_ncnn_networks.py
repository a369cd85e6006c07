"""Networks of ncnn's benchmark that no library builds, as its .param files (Tencent/ncnn, benchmark/) describe them.

Only shapes matter to the cost model, so every layer is one call that makes its weights on the spot.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from cost_model_networks import IMAGE, _timm
from torch import Tensor, nn
from torch.nn import functional


class Network(nn.Module):
    """A function of the input as a network."""

    def __init__(self, run: Callable[..., object]) -> None:
        super().__init__()
        self.run = run

    def forward(self, *inputs: Tensor) -> object:
        """Call the function."""
        return self.run(*inputs)


def conv(
    x: Tensor, cout: int, k: int = 1, s: int = 1, groups: int = 1, pad: int | None = None, act: bool = True
) -> Tensor:
    """A 2-d convolution with bias, "same" padding unless told, then ReLU."""
    weight = torch.empty(cout, x.shape[1] // groups, k, k, device=x.device)
    y = functional.conv2d(x, weight, torch.empty(cout, device=x.device), s, k // 2 if pad is None else pad, 1, groups)
    return functional.relu(y) if act else y


def depthwise(x: Tensor, k: int = 3, s: int = 1, act: bool = True) -> Tensor:
    return conv(x, x.shape[1], k, s, x.shape[1], act=act)


def dense(x: Tensor, cout: int) -> Tensor:
    return functional.linear(x, torch.empty(cout, x.shape[-1], device=x.device), torch.empty(cout, device=x.device))


def separable(x: Tensor, cout: int, k: int = 3, s: int = 1, act: bool = True) -> Tensor:
    return conv(depthwise(x, k, s), cout, act=act)


def shuffle(x: Tensor, groups: int) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).contiguous().view(b, c, h, w)


def inverted(x: Tensor, wide: int, cout: int, k: int = 3, s: int = 1) -> Tensor:
    """An inverted residual: widen, depthwise, narrow; a shortcut where the shape stays."""
    y = conv(depthwise(conv(x, wide), k, s), cout, act=False)
    return x + y if y.shape == x.shape else y


def mobilenet_v1(x: Tensor) -> tuple[Tensor, Tensor]:
    """Its maps at strides 16 and 32."""
    x = conv(x, 32, 3, 2)
    for cout, s in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5):
        x = separable(x, cout, 3, s)
    return x, separable(separable(x, 1024, 3, 2), 1024)


def ssd_heads(maps: list[Tensor], anchors: list[int], k: int, classes: int) -> tuple[Tensor, Tensor]:
    """Boxes and class scores of every map, laid out by anchor."""

    def flat(y: Tensor) -> Tensor:
        return y.permute(0, 2, 3, 1).flatten(1)

    boxes = [flat(conv(y, 4 * n, k, act=False)) for y, n in zip(maps, anchors, strict=True)]
    scores = [flat(conv(y, classes * n, k, act=False)) for y, n in zip(maps, anchors, strict=True)]
    return torch.cat(boxes, 1), torch.cat(scores, 1).view(1, -1, classes).softmax(-1)


def mobilenet_ssd(x: Tensor, classes: int = 21) -> tuple[Tensor, Tensor]:
    first, last = mobilenet_v1(x)
    maps = [first, last]
    for narrow, wide in ((256, 512), (128, 256), (128, 256), (64, 128)):
        maps.append(conv(conv(maps[-1], narrow), wide, 3, 2))
    return ssd_heads(maps, [3, 6, 6, 6, 6, 6], 1, classes)


def _squeezenet_ssd(x: Tensor) -> tuple[Tensor, Tensor]:
    def fire(y: Tensor, narrow: int, wide: int) -> Tensor:
        y = conv(y, narrow)
        return torch.cat((conv(y, wide), conv(y, wide, 3)), 1)

    def pool(y: Tensor, ceil: bool = True) -> Tensor:
        return functional.max_pool2d(y, 3, 2, ceil_mode=ceil)

    x = pool(conv(x, 64, 3, 2, pad=0))
    x = pool(fire(fire(x, 16, 64), 16, 64))
    fire5 = fire(fire(x, 32, 128), 32, 128)
    x = pool(fire5)
    for narrow, wide in ((48, 192), (48, 192), (64, 256), (64, 256)):
        x = fire(x, narrow, wide)
    fire10 = fire(pool(x), 96, 384)
    fire11 = fire(pool(fire10), 96, 384)
    conv12 = conv(conv(fire11, 128), 256, 3, 2)
    conv13 = conv(conv(conv12, 64), 128, 3, 2)
    scaled = fire5 * torch.empty(1, 256, 1, 1, device=x.device)
    return ssd_heads([scaled, x, fire10, fire11, conv12, conv13], [4, 6, 6, 6, 6, 4], 3, 21)


def _mobilenet_yolo(x: Tensor) -> tuple[Tensor, Tensor]:
    first, last = mobilenet_v1(x)
    last = separable(last, 1024)
    up = functional.conv_transpose2d(last, torch.empty(1024, 1, 4, 4, device=x.device), None, 2, 1, groups=512)
    fine = separable(first + up, 1024)
    return conv(last, 125, act=False), conv(fine, 125, act=False)


def _mobilenetv2_yolov3(x: Tensor) -> tuple[Tensor, Tensor]:
    x = conv(depthwise(conv(x, 32, 3, 2)), 16, act=False)
    for cout, s, repeats in ((24, 2, 2), (32, 2, 3), (64, 2, 4), (96, 1, 3)):
        for index in range(repeats):
            x = inverted(x, 6 * x.shape[1], cout, 3, s if index == 0 else 1)
    skip = conv(x, 576)
    x = conv(depthwise(skip, 3, 2), 160, act=False)
    for cout in (160, 160, 320):
        x = inverted(x, 960, cout)
    coarse = separable(conv(x, 1280), 576)
    fine = separable(functional.interpolate(coarse, scale_factor=2) + separable(skip, 576), 576)
    return conv(coarse, 75, act=False), conv(fine, 75, act=False)


def _shuffle_v2(x: Tensor, width: int, repeats: int) -> Tensor:
    """A stage of ShuffleNetV2: halve the map, then ``repeats`` units on half the channels."""
    side = conv(depthwise(x, 3, 2, act=False), width)
    x = torch.cat((side, conv(depthwise(conv(x, width), 3, 2, act=False), width)), 1)
    for _ in range(repeats):
        left, right = shuffle(x, 2).chunk(2, 1)
        x = torch.cat((left, conv(depthwise(conv(right, width), act=False), width)), 1)
    return x


def _shuffle_backbone(x: Tensor, widths: tuple[int, int, int]) -> list[Tensor]:
    x = functional.max_pool2d(conv(x, 24, 3, 2), 3, 2, 1)
    maps = []
    for width, repeats in zip(widths, (3, 7, 3), strict=True):
        x = _shuffle_v2(x, width, repeats)
        maps.append(x)
    return maps


def _nanodet(x: Tensor) -> list[Tensor]:
    maps = [conv(y, 96, act=False) for y in _shuffle_backbone(x, (58, 116, 232))]
    maps[1] = maps[1] + functional.interpolate(maps[2], scale_factor=2, mode="bilinear")
    maps[0] = maps[0] + functional.interpolate(maps[1], scale_factor=2, mode="bilinear")
    maps[1] = maps[1] + functional.interpolate(maps[0], scale_factor=0.5, mode="bilinear")
    maps[2] = maps[2] + functional.interpolate(maps[1], scale_factor=0.5, mode="bilinear")
    found = []
    for y in maps:
        scores, boxes = conv(separable(separable(y, 96), 96), 112, act=False).split((80, 32), 1)
        found += [scores.sigmoid().flatten(2).transpose(1, 2).contiguous(), boxes.flatten(2).transpose(1, 2)]
    return found


def _yolo_fastest(x: Tensor) -> tuple[Tensor, Tensor]:
    x = conv(depthwise(conv(conv(x, 8, 3, 2), 8)), 4, act=False)
    x = inverted(x, 8, 4)
    plan = ((24, 8, 2, 1), (32, 8, 1, 2), (32, 8, 2, 1), (48, 8, 1, 2), (48, 16, 1, 1), (96, 16, 1, 4))
    for wide, cout, s, repeats in (*plan, (96, 24, 2, 1), (136, 24, 1, 4)):
        for _ in range(repeats):
            x = inverted(x, wide, cout, 3, s)
    skip = x
    x = inverted(x, 136, 48, 3, 2)
    for _ in range(5):
        x = inverted(x, 224, 48)
    pools = [functional.max_pool2d(x, k, 1, k // 2) for k in (9, 5, 3)]
    x = conv(torch.cat((*pools, x), 1), 96)
    found = []
    for y in (x, torch.cat((functional.interpolate(x, scale_factor=2), skip), 1)):
        width = y.shape[1]
        head = separable(separable(y, width, 5, act=False), width, 5, act=False)
        found.append(conv(head, 255, act=False))
    return found[0], found[1]


def _yolo_fastest_v2(x: Tensor) -> list[Tensor]:
    _, fine, coarse = _shuffle_backbone(x, (24, 48, 96))
    joined = torch.cat((functional.interpolate(coarse, scale_factor=2), fine), 1)
    found = []
    for y in (conv(coarse, 72), conv(joined, 72)):
        classes, boxes = (separable(separable(y, 72, 5, act=False), 72, 5, act=False) for _ in range(2))
        outs = conv(boxes, 12, act=False), conv(classes, 3, act=False), conv(classes, 80, act=False)
        made = outs[0].sigmoid(), outs[1].sigmoid(), outs[2].softmax(1)
        found.append(torch.cat(made, 1).permute(0, 2, 3, 1).contiguous())
    return found


def _fastest_det(x: Tensor) -> Tensor:
    fine, middle, coarse = _shuffle_backbone(x, (24, 48, 96))
    joined = torch.cat(
        (functional.avg_pool2d(fine, 3, 2, 1), middle, functional.interpolate(coarse, scale_factor=2)), 1
    )
    x = conv(joined, 96)
    branches = []
    for depth in (1, 2, 3):
        y = x
        for _ in range(depth):
            y = depthwise(y, 5)
        branches.append(y)
    x = conv(functional.relu(x + conv(torch.cat(branches, 1), 96, act=False)), 96)
    objects, boxes, classes = (separable(x, width, 5, act=False) for width in (1, 4, 80))
    return torch.cat((objects.sigmoid(), boxes, classes.softmax(1)), 1)


def _blazeface(x: Tensor) -> Tensor:
    x = conv(functional.pad(x, (1, 2, 1, 2)), 24, 5, 2, pad=0)
    plan = ((24, 1), (28, 1), (32, 2), (36, 1), (42, 1), (48, 2), (56, 1), (64, 1), (72, 1), (80, 1), (88, 1))
    for cout, s in (*plan, (96, 2), (96, 1), (96, 1), (96, 1)):
        side = functional.max_pool2d(x, 2) if s == 2 else x
        if cout > x.shape[1]:
            side = functional.pad(side, (0, 0, 0, 0, 0, cout - x.shape[1]))
        y = (
            conv(functional.pad(x, (0, 2, 0, 2)), x.shape[1], 3, 2, x.shape[1], 0, act=False)
            if s == 2
            else depthwise(x, act=False)
        )
        x = functional.relu(conv(y, cout, act=False) + side)
    return x


def _proxyless(x: Tensor) -> Tensor:
    """ProxylessNAS for mobile GPUs and CPUs: (width of the expansion, out, kernel, stride) by block."""
    x = conv(depthwise(conv(x, 32, 3, 2)), 32, act=False)
    plan = ((48, 32, 5, 2), (96, 32, 3, 1), (96, 40, 7, 2), (120, 40, 3, 1), (120, 40, 5, 1), (120, 40, 5, 1))
    plan += ((240, 80, 7, 2), *[(240, 80, 5, 1)] * 3, (480, 96, 5, 1), *[(288, 96, 5, 1)] * 3)
    plan += ((576, 192, 7, 2), (1152, 192, 7, 1), (576, 192, 7, 1), (576, 192, 7, 1), (1152, 320, 7, 1))
    for wide, cout, k, s in plan:
        x = inverted(x, wide, cout, k, s)
    return dense(functional.adaptive_avg_pool2d(conv(x, 1280), 1).flatten(1), 1000).softmax(-1)


def _alexnet(x: Tensor) -> Tensor:
    """Krizhevsky's, with two groups and local response normalization."""

    def normalize(y: Tensor) -> Tensor:
        return y / functional.avg_pool2d(y * y, 5, 1, 2).pow(0.75)

    x = functional.max_pool2d(normalize(conv(x, 96, 11, 4, pad=0)), 3, 2)
    x = functional.max_pool2d(normalize(conv(x, 256, 5, groups=2)), 3, 2)
    x = conv(conv(conv(x, 384, 3), 384, 3, groups=2), 256, 3, groups=2)
    x = functional.max_pool2d(x, 3, 2).flatten(1)
    return dense(functional.relu(dense(functional.relu(dense(x, 4096)), 4096)), 1000).softmax(-1)


def _shufflenet(x: Tensor) -> Tensor:
    """ShuffleNet 1x with three groups."""
    x = functional.max_pool2d(conv(x, 24, 3, 2), 3, 2, ceil_mode=True)
    for stage, (cout, repeats) in enumerate(((240, 4), (480, 8), (960, 4))):
        for index in range(repeats):
            s = 2 if index == 0 else 1
            width = cout // 4
            y = conv(x, width, groups=1 if stage == 0 and index == 0 else 3)
            y = depthwise(shuffle(y, 3), 3, s, act=False)
            if s == 2:
                y = conv(y, cout - x.shape[1], groups=3, act=False)
                x = functional.relu(torch.cat((functional.avg_pool2d(x, 3, 2, 1), y), 1))
            else:
                x = functional.relu(x + conv(y, cout, groups=3, act=False))
    return dense(functional.adaptive_avg_pool2d(x, 1).flatten(1), 1000).softmax(-1)


def net(run: Callable[..., object], *shapes: tuple[int, ...]) -> tuple[Callable[[], Network], tuple]:
    """A builder and its input shapes, as `cost_model_networks.facts` wants them."""
    return (lambda: Network(run)), shapes


NCNN = {
    "alexnet": ("alexnet", *net(_alexnet, (1, 3, 227, 227))),
    "vision_transformer": ("vit", *_timm("vit_base_patch32_384", (1, 3, 384, 384))),
    "mobilenet_ssd": ("mobilenet", *net(mobilenet_ssd, (1, 3, 300, 300))),
    "squeezenet_ssd": ("squeezenet", *net(_squeezenet_ssd, (1, 3, 300, 300))),
    "mobilenet_yolo": ("mobilenet", *net(_mobilenet_yolo, (1, 3, 416, 416))),
    "mobilenetv2_yolov3": ("mobilenet_v2", *net(_mobilenetv2_yolov3, (1, 3, 352, 352))),
    "nanodet_m": ("shufflenet", *net(_nanodet, (1, 3, 320, 320))),
    "yolo-fastest-1.1": ("yolo-fastest", *net(_yolo_fastest, (1, 3, 320, 320))),
    "yolo-fastestv2": ("shufflenet", *net(_yolo_fastest_v2, (1, 3, 352, 352))),
    "FastestDet": ("shufflenet", *net(_fastest_det, (1, 3, 352, 352))),
    "blazeface": ("blazeface", *net(_blazeface, (1, 3, 128, 128))),
    "proxylessnasnet": ("proxylessnas", *net(_proxyless, IMAGE)),
    "shufflenet": ("shufflenet_v1", *net(_shufflenet, IMAGE)),
}  # fmt: skip
