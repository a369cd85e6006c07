"""Transformers of the AI Hub table from configuration classes: nothing is downloaded, weights are never made."""

from __future__ import annotations

import torch
from torch import nn


class _Call(nn.Module):
    """``network`` called by keyword; ``pick`` takes tensors from what it returns."""

    def __init__(self, network, names, pick, **fixed):
        super().__init__()
        self.network, self.names, self.pick, self.fixed = network, names, pick, fixed

    def forward(self, *inputs):
        return self.pick(self.network(**dict(zip(self.names, inputs, strict=True)), **self.fixed))


def _eager(config):
    """Attention as the exporter sees it: two matrix products and a softmax."""
    for item in (config, *(value for value in vars(config).values() if hasattr(value, "_attn_implementation"))):
        item._attn_implementation = "eager"
    return config


def clip():
    """CLIP ViT-B/16, image and text in one graph."""
    from transformers import CLIPConfig, CLIPModel

    config = _eager(CLIPConfig(vision_config={"patch_size": 16}, text_config={}))
    net = CLIPModel(config)
    return _Call(net, ("pixel_values", "input_ids"), lambda found: found.logits_per_image)


def siglip_image():
    """SigLIP2 base/16 at 224, the image half."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    return _Call(SiglipVisionModel(_eager(SiglipVisionConfig())), ("pixel_values",), lambda found: found.pooler_output)


def siglip_text():
    """SigLIP2 base, the text half with its vocabulary of 256,000."""
    from transformers import SiglipTextConfig, SiglipTextModel

    config = _eager(SiglipTextConfig(vocab_size=256000))
    return _Call(SiglipTextModel(config), ("input_ids",), lambda found: found.pooler_output)


def owl_vit():
    """OWL-ViT base/32 at 768 with one query of 16 tokens."""
    from transformers import OwlViTConfig, OwlViTForObjectDetection

    config = _eager(OwlViTConfig(vision_config={"image_size": 768, "patch_size": 32}, text_config={}))
    net = OwlViTForObjectDetection(config)
    return _Call(net, ("input_ids", "pixel_values"), lambda found: (found.logits, found.pred_boxes))


def trocr_encoder():
    """TrOCR small's encoder: DeiT small at 384, and the keys and values of the six decoder layers."""
    from transformers import DeiTConfig, DeiTModel

    config = _eager(DeiTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536, image_size=384))

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = DeiTModel(config, add_pooling_layer=False)
            self.cross = nn.ModuleList(nn.Linear(384, 256) for _ in range(12))

        def forward(self, image):
            hidden = self.net(image).last_hidden_state
            return tuple(part(hidden).view(1, -1, 8, 32).transpose(1, 2) for part in self.cross)

    return Encoder()


def depth_anything_v2():
    """Depth Anything V2 small."""
    from cost_model_networks import _depth

    return _depth()[0]()


def detr(layers=50, *, dilated=False):
    """DETR (Carion et al. 2020) on a torchvision ResNet, boxes and scores decoded; dilated is DC5."""
    import torchvision.models as models

    class Detr(nn.Module):
        def __init__(self):
            super().__init__()
            make = models.resnet50 if layers == 50 else models.resnet101
            net = make(weights=None, replace_stride_with_dilation=[False, False, dilated])
            self.body = nn.Sequential(*list(net.children())[:-2])
            self.turn = nn.Conv2d(2048, 256, 1)
            side = 30 if dilated else 15
            self.register_buffer("place", torch.zeros(1, side * side, 256))
            self.register_buffer("blank", torch.zeros(1, 100, 256))
            self.query = nn.Parameter(torch.zeros(1, 100, 256))
            self.encoder = nn.ModuleList(_Encode() for _ in range(6))
            self.decoder = nn.ModuleList(_Decode() for _ in range(6))
            self.norm, self.label = nn.LayerNorm(256), nn.Linear(256, 92)
            self.box = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 4))

        def forward(self, image):
            x = self.turn(self.body(image)).flatten(2).transpose(1, 2)
            for layer in self.encoder:
                x = layer(x, self.place)
            y = self.blank + 0 * x[:, :1]
            for layer in self.decoder:
                y = layer(y, self.query, x, self.place)
            y = self.norm(y)
            scores, labels = self.label(y).softmax(-1)[..., :-1].max(-1)
            boxes = self.box(y).sigmoid()
            middle, wide = boxes.split(2, -1)
            return torch.cat([middle - wide / 2, middle + wide / 2], -1) * 480, scores, labels

    return Detr()


class _Heads(nn.Module):
    """Multi-head attention with separate projections."""

    def __init__(self, c=256, heads=8):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(c, c) for _ in range(4))

    def _split(self, x):
        return x.view(1, -1, self.heads, x.shape[-1] // self.heads).transpose(1, 2)

    def forward(self, query, key, value):
        q, k, v = self._split(self.q(query)), self._split(self.k(key)), self._split(self.v(value))
        mixed = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(1, -1, query.shape[-1]))


class _Encode(nn.Module):
    def __init__(self, c=256, hidden=2048):
        super().__init__()
        self.attention = _Heads(c)
        self.dense = nn.Sequential(nn.Linear(c, hidden), nn.ReLU(), nn.Linear(hidden, c))
        self.one, self.two = nn.LayerNorm(c), nn.LayerNorm(c)

    def forward(self, x, place):
        x = self.one(x + self.attention(x + place, x + place, x))
        return self.two(x + self.dense(x))


class _Decode(nn.Module):
    def __init__(self, c=256, hidden=2048):
        super().__init__()
        self.own, self.cross = _Heads(c), _Heads(c)
        self.dense = nn.Sequential(nn.Linear(c, hidden), nn.ReLU(), nn.Linear(hidden, c))
        self.norms = nn.ModuleList(nn.LayerNorm(c) for _ in range(3))

    def forward(self, y, query, x, place):
        y = self.norms[0](y + self.own(y + query, y + query, y))
        y = self.norms[1](y + self.cross(y + query, x + place, x))
        return self.norms[2](y + self.dense(y))


def nomic():
    """Nomic Embed text v1.5 (a BERT with rotary positions and gated MLPs), 128 tokens, mean-pooled to 512."""

    class Gate(nn.Module):
        def __init__(self, c=768):
            super().__init__()
            self.qkv, self.out = nn.Linear(c, 3 * c, bias=False), nn.Linear(c, c, bias=False)
            self.up, self.gate, self.down = (
                nn.Linear(*size, bias=False) for size in ((c, 4 * c), (c, 4 * c), (4 * c, c))
            )
            self.one, self.two = nn.LayerNorm(c), nn.LayerNorm(c)
            self.register_buffer("cosine", torch.zeros(1, 1, 128, 64))
            self.register_buffer("sine", torch.zeros(1, 1, 128, 64))

        def turn(self, x):
            low, high = x.chunk(2, -1)
            return x * self.cosine + torch.cat([-high, low], -1) * self.sine

        def forward(self, x):
            q, k, v = self.qkv(x).view(1, 128, 3, 12, 64).unbind(2)
            q, k, v = self.turn(q.transpose(1, 2)), self.turn(k.transpose(1, 2)), v.transpose(1, 2)
            mixed = ((q @ k.transpose(-2, -1)) * 0.125).softmax(-1) @ v
            x = self.one(x + self.out(mixed.transpose(1, 2).reshape(1, 128, 768)))
            return self.two(x + self.down(self.up(x) * nn.functional.silu(self.gate(x))))

    class Nomic(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.types = nn.Embedding(30528, 768), nn.Parameter(torch.zeros(1, 1, 768))
            self.norm = nn.LayerNorm(768)
            self.layers = nn.Sequential(*(Gate() for _ in range(12)))

        def forward(self, ids):
            found = self.layers(self.norm(self.words(ids) + self.types)).mean(1)
            found = nn.functional.layer_norm(found, (768,))[:, :512]
            return found / found.norm(dim=1, keepdim=True)

    return Nomic()
