"""The networks of the AI Hub table, rebuilt: torchvision, timm, transformers configs, and small ones by hand.

Parameter counts (printed while tracing) were compared with the published ones and look-alikes left out. Known to
differ: MobileBERT (untied embeddings), BEiT (relative position tables), and DistilBERT, whose published count is that
of another model.
``NETWORKS`` maps the wheel's name to (architecture family, builder, input shapes).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

#: Drawn on real tensors first: their builders read values.
ON_CPU = {"regnet", "regnet_y_800mf"}

IMAGE = (1, 3, 224, 224)


def _tv(name, shape=IMAGE, **options):
    def build():
        import torchvision.models as models

        return models.get_model(name, weights=None, **options)

    return build, (shape,)


def _timm(name, shape=IMAGE, **options):
    def build():
        import timm

        timm.layers.set_fused_attn(False)
        network = timm.create_model(name, pretrained=False, **options)
        merged = name.startswith(("repvit", "mobileone", "fastvit"))
        return timm.utils.model.reparameterize_model(network) if merged else network

    return build, (shape,)


def _hf(kind, shapes, **config):
    def build():
        import transformers

        settings = getattr(transformers, kind[0])(**config)
        settings._attn_implementation = "eager"
        return getattr(transformers, kind[1])(settings)

    return build, shapes


def _depth():
    def build():
        from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

        backbone = Dinov2Config(
            hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14, reshape_hidden_states=False,
            out_indices=[9, 10, 11, 12], apply_layernorm=True,
        )  # fmt: skip
        backbone._attn_implementation = "eager"
        config = DepthAnythingConfig(
            backbone_config=backbone, reassemble_hidden_size=384, neck_hidden_sizes=[48, 96, 192, 384],
            fusion_hidden_size=64,
        )  # fmt: skip
        return DepthAnythingForDepthEstimation(config)

    return build, ((1, 3, 518, 518),)


def _text(length):
    return ((1, length, "ids"),)


class _Plain(nn.Module):
    """SESR, XLSR-like, QuickSRNet and SRVGG: a chain of 3×3 convolutions, one long skip, a pixel shuffle."""

    def __init__(self, width, layers, scale, *, first=3, act=nn.ReLU, skip=True, out=3, inp=3, last=3):
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(inp, width, first, padding=first // 2), act())
        body = []
        for _ in range(layers):
            body += [nn.Conv2d(width, width, 3, padding=1), act()]
        self.body, self.skip = nn.Sequential(*body), skip
        self.tail = nn.Conv2d(width, out * scale * scale, last, padding=last // 2)
        self.shuffle = nn.PixelShuffle(scale) if scale > 1 else nn.Identity()

    def forward(self, image):
        hidden = self.head(image)
        deep = self.body(hidden)
        return self.shuffle(self.tail(deep + hidden if self.skip else deep))


class _UNet(nn.Module):
    def __init__(self):
        super().__init__()

        def double(a, b):
            return nn.Sequential(
                nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
                nn.Conv2d(b, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
            )  # fmt: skip

        sizes = (64, 128, 256, 512, 1024)
        self.first = double(3, 64)
        self.down = nn.ModuleList(double(a, b) for a, b in pairwise(sizes))
        self.rise = nn.ModuleList(nn.ConvTranspose2d(b, b // 2, 2, stride=2) for b in sizes[:0:-1])
        self.up = nn.ModuleList(double(b, b // 2) for b in sizes[:0:-1])
        self.last, self.pool = nn.Conv2d(64, 2, 1), nn.MaxPool2d(2)

    def forward(self, x):
        kept = [self.first(x)]
        for block in self.down:
            kept.append(block(self.pool(kept[-1])))
        x = kept.pop()
        for rise, block in zip(self.rise, self.up, strict=True):
            x = block(torch.cat([kept.pop(), rise(x)], 1))
        return self.last(x)


class _Yamnet(nn.Module):
    def __init__(self):
        super().__init__()

        def unit(a, b, s):
            return [
                nn.Conv2d(a, a, 3, s, 1, groups=a, bias=False), nn.BatchNorm2d(a), nn.ReLU(),
                nn.Conv2d(a, b, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
            ]  # fmt: skip

        plan = [(32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2)]
        plan += [(512, 512, 1)] * 5 + [(512, 1024, 2), (1024, 1024, 1)]
        layers = [nn.Conv2d(1, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
        for step in plan:
            layers += unit(*step)
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 521), nn.Sigmoid())

    def forward(self, x):
        return self.body(x)


class _Rrdb(nn.Module):
    """ESRGAN's generator: 23 residual-in-residual dense blocks (Wang et al. 2018)."""

    def __init__(self, width=64, growth=32, blocks=23):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.dense = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(width + i * growth, growth if i < 4 else width, 3, padding=1) for i in range(5))
            for _ in range(3 * blocks)
        )
        self.tail = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(4))
        self.last, self.act = nn.Conv2d(width, 3, 3, padding=1), nn.LeakyReLU(0.2)

    def forward(self, x):
        x = base = outer = self.first(x)
        for index, dense in enumerate(self.dense):
            outer = x if index % 3 == 0 else outer
            features = [x]
            for conv in dense[:-1]:
                features.append(self.act(conv(torch.cat(features, 1) if len(features) > 1 else x)))
            x = dense[-1](torch.cat(features, 1)) * 0.2 + x
            x = x * 0.2 + outer if index % 3 == 2 else x
        x = base + self.tail[0](x)
        for conv in self.tail[1:3]:
            x = self.act(conv(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")))
        return self.last(self.act(self.tail[3](x)))


class _Srgan(nn.Module):
    """SRResNet with 16 blocks (Ledig et al. 2017)."""

    def __init__(self, width=64, blocks=16):
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(3, width, 9, padding=4), nn.PReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.PReLU(),
                nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
            )
            for _ in range(blocks)
        )  # fmt: skip
        self.mid = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        up = [nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.PReLU()]
        up2 = [nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.PReLU()]
        self.tail = nn.Sequential(*up, *up2, nn.Conv2d(width, 3, 9, padding=4), nn.Tanh())

    def forward(self, x):
        x = base = self.head(x)
        for block in self.blocks:
            x = block(x) + x
        return self.tail(self.mid(x) + base)


class _VideoFirst(nn.Module):
    def __init__(self, name):
        super().__init__()
        import torchvision.models as models

        self.net = models.get_model(name, weights=None)

    def forward(self, x):
        return self.net(x)


class _First(nn.Module):
    """A segmentation network's first output."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        found = self.net(x)
        return found["out"] if isinstance(found, dict) else found[0]


def _seg(name, shape):
    def build():
        import torchvision.models as models

        return _First(models.get_model(name, weights=None, weights_backbone=None, aux_loss=False))

    return build, (shape,)


def _own(build, shape):
    return build, (shape,)


def _bert(length, classes="BertForMaskedLM", **config):
    return _hf(("BertConfig", classes), _text(length), **config)


_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
_VIDEO = (1, 3, 16, 112, 112)

NETWORKS = {
    "convnext_tiny": ("convnext", *_tv("convnext_tiny")),
    "convnext_base": ("convnext", *_tv("convnext_base")),
    "densenet121": ("densenet", *_tv("densenet121")),
    "efficientnet_b0": ("efficientnet", *_tv("efficientnet_b0")),
    "efficientnet_b4": ("efficientnet", *_tv("efficientnet_b4", (1, 3, 380, 380))),
    "efficientnet_v2_s": ("efficientnet", *_tv("efficientnet_v2_s", (1, 3, 384, 384))),
    "efficientnet_lite4": ("efficientnet", *_timm("tf_efficientnet_lite4", (1, 3, 300, 300))),
    "googlenet": ("googlenet", *_tv("googlenet", init_weights=False, aux_logits=False)),
    "inception_v3": ("inception", *_tv("inception_v3", (1, 3, 299, 299), init_weights=False, aux_logits=False)),
    "inception_v4": ("inception", *_timm("inception_v4", (1, 3, 299, 299))),
    "mnasnet05": ("mnasnet", *_tv("mnasnet0_5")),
    "mobilenet_v2": ("mobilenet", *_tv("mobilenet_v2")),
    "mobilenet_v3_large": ("mobilenet", *_tv("mobilenet_v3_large")),
    "mobilenet_v3_small": ("mobilenet", *_tv("mobilenet_v3_small")),
    "mobilenet_v4": ("mobilenetv4", *_timm("mobilenetv4_conv_medium")),
    "regnet": ("regnet", *_tv("regnet_x_3_2gf")),
    "regnet_y_800mf": ("regnet", *_tv("regnet_y_800mf")),
    "resnet18": ("resnet", *_tv("resnet18")),
    "resnet50": ("resnet", *_tv("resnet50")),
    "resnet101": ("resnet", *_tv("resnet101")),
    "resnext50": ("resnext", *_tv("resnext50_32x4d")),
    "resnext101": ("resnext", *_tv("resnext101_32x8d")),
    "wideresnet50": ("resnet", *_tv("wide_resnet50_2")),
    "shufflenet_v2": ("shufflenet", *_tv("shufflenet_v2_x0_5")),
    "squeezenet1_1": ("squeezenet", *_tv("squeezenet1_1")),
    "swin_tiny": ("swin", *_tv("swin_t")),
    "swin_small": ("swin", *_tv("swin_s")),
    "swin_base": ("swin", *_tv("swin_b")),
    "swinv2_base": ("swin", *_tv("swin_v2_b", (1, 3, 256, 256))),
    "vit": ("vit", *_timm("vit_base_patch16_224")),
    "fcn_resnet50": ("fcn", *_seg("fcn_resnet50", (1, 3, 520, 520))),
    "resnet_3d": ("video_resnet", *_tv("r3d_18", _VIDEO)),
    "resnet_mixed": ("video_resnet", *_tv("mc3_18", _VIDEO)),
    "resnet_2plus1d": ("video_resnet", *_tv("r2plus1d_18", _VIDEO)),
    "dla102x": ("dla", *_timm("dla102x")),
    "levit": ("levit", *_timm("levit_128s")),
    "efficientformer": ("efficientformer", *_timm("efficientformer_l1")),
    "efficientvit_b2_cls": ("efficientvit", *_timm("efficientvit_b2", (1, 3, 224, 224))),
    "efficientvit_l2_cls": ("efficientvit", *_timm("efficientvit_l2", (1, 3, 384, 384))),
    "nasnet": ("nasnet", *_timm("nasnetalarge", (1, 3, 331, 331))),
    "repvit": ("repvit", *_timm("repvit_m2_3")),
    "beit": ("vit", *_timm("beit_base_patch16_224")),
    "mobile_vit": ("mobilevit", *_timm("mobilevit_s", (1, 3, 256, 256))),
    "convnext_v2_base": ("convnext", *_timm("convnextv2_base")),
    "albert_base_v2_hf": (
        "bert",
        *_hf(
            ("AlbertConfig", "AlbertForMaskedLM"),
            _text(384),
            vocab_size=30000,
            embedding_size=128,
            hidden_size=768,
            num_attention_heads=12,
            intermediate_size=3072,
        ),
    ),
    "bert_base_uncased_hf": ("bert", *_bert(384)),
    "distil_bert_base_uncased_hf": ("bert", *_hf(("DistilBertConfig", "DistilBertForMaskedLM"), _text(384))),
    "electra_bert_base_discrim_google": (
        "bert",
        *_hf(("ElectraConfig", "ElectraForPreTraining"), _text(384), embedding_size=768, **_BASE),
    ),
    "minilm_v2": (
        "bert",
        *_bert(128, "BertModel", hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536),
    ),
    "mobile_bert_uncased_google": ("mobilebert", *_hf(("MobileBertConfig", "MobileBertForMaskedLM"), _text(384))),
    "segformer_base": (
        "segformer",
        *_hf(("SegformerConfig", "SegformerForSemanticSegmentation"), ((1, 3, 512, 512),), num_labels=150),
    ),
    "depth_anything": ("depth_anything", *_depth()),
    "video_mae": (
        "vit",
        *_hf(("VideoMAEConfig", "VideoMAEForVideoClassification"), ((1, 16, 3, 224, 224),), num_labels=400),
    ),
    "quicksrnetsmall": (
        "superres",
        *_own(lambda: _Plain(32, 2, 4, act=lambda: nn.Hardtanh(0, 1), skip=False), (1, 3, 128, 128)),
    ),
    "quicksrnetmedium": (
        "superres",
        *_own(lambda: _Plain(32, 5, 4, act=lambda: nn.Hardtanh(0, 1), skip=False), (1, 3, 128, 128)),
    ),
    "quicksrnetlarge": ("superres", *_own(lambda: _Plain(64, 11, 4, act=lambda: nn.Hardtanh(0, 1)), (1, 3, 128, 128))),
    "real_esrgan_general_x4v3": (
        "superres",
        *_own(lambda: _Plain(64, 32, 4, act=lambda: nn.PReLU(64), skip=False), (1, 3, 128, 128)),
    ),
    "dncnn": ("dncnn", *_own(lambda: _Plain(64, 15, 1, inp=1, out=1, skip=False), (1, 1, 256, 256))),
    "unet_segmentation": ("unet", *_own(_UNet, (1, 3, 640, 1280))),
    "yamnet": ("mobilenet", *_own(_Yamnet, (1, 1, 96, 64))),
    "esrgan": ("rrdb", *_own(_Rrdb, (1, 3, 128, 128))),
    "srgan": ("srresnet", *_own(_Srgan, (1, 3, 128, 128))),
}


def hub():
    """The networks of the AI Hub table."""
    from cost_model_more_networks import MORE

    return {**NETWORKS, **MORE}


def every():
    """All networks, those of the smaller tables included."""
    from cost_model_small_networks import SMALL

    return {**hub(), **SMALL}


#: Of the AI Hub table, those that subtract the mean and divide by the deviation inside the measured graph.
NORMALIZED = frozenset(
    """convnext_tiny convnext_base convnext_v2_base densenet121 efficientnet_b0 efficientnet_b4 efficientnet_v2_s
    efficientnet_lite4 googlenet inception_v3 inception_v4 mnasnet05 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small
    mobilenet_v4 regnet regnet_y_800mf resnet18 resnet50 resnet101 resnext50 resnext101 wideresnet50 shufflenet_v2
    squeezenet1_1 swin_tiny swin_small swin_base swinv2_base vit dla102x levit efficientformer efficientvit_b2_cls
    efficientvit_l2_cls nasnet repvit beit segformer_base depth_anything depth_anything_v2 hrnet_pose hrnet_face osnet
    pspnet u2net_segmentation midas resnet34_ssd1200 easyocr:detector deepbox:vgg_3d_detection deeplabv3_plus_mobilenet
    ffnet_40s ffnet_54s ffnet_78s ffnet_78s_lowres ffnet_122ns_lowres ddrnet23_slim pidnet detr_resnet50
    detr_resnet50_dc5 detr_resnet101 detr_resnet101_dc5""".split()  # noqa: SIM905
)


class _Normalized(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1, device="meta"))
        self.register_buffer("deviation", torch.ones(1, 3, 1, 1, device="meta"))

    def forward(self, image):
        return self.net((image - self.mean) / self.deviation)


def facts(name):
    """The traced ops of one network, and its number of parameters."""
    from cost_model_trace import trace

    _, build, shapes = every()[name]
    with torch.device("cpu" if name in ON_CPU else "meta"):
        network = build().to("meta")
    if name in NORMALIZED:
        network = _Normalized(network)
    inputs = [
        torch.zeros(shape[:-1], dtype=torch.long, device="meta")
        if shape[-1] == "ids"
        else torch.zeros(shape, device="meta")
        for shape in shapes
    ]
    return trace(network, inputs), sum(parameter.numel() for parameter in network.parameters())
