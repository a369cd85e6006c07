"""Real trained models and real data that the tests share; everything comes from installed packages.

What takes seconds to make (the digits CNN) is kept in a temporary folder for the whole test run, so that
parallel workers and repeated tests train it once.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import digits_cnn as digits_example
import efficientnet_lite0 as efficientnet_example
import minilm_encoder as minilm_example


def _cache_folder() -> Path:
    """One folder a user and torch version; files are written aside and moved into place."""
    folder = Path(tempfile.gettempdir()) / f"edgedeploy-test-models-{os.getuid()}-{torch.__version__}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@functools.cache
def digits_cnn() -> torch.nn.Module:
    """A trained CNN: conv, residual add, ReLU6, depthwise, mean, linear; input `image` (n, 1, 8, 8); ~97 %."""
    source = Path(digits_example.__file__)
    path = _cache_folder() / f"digits-{source.stat().st_mtime_ns}.pt"
    model = digits_example.DigitsCnn()
    if not path.exists():
        aside = path.with_suffix(f".{os.getpid()}")
        torch.save(digits_example.train().state_dict(), aside)
        aside.replace(path)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


@functools.cache
def digits_data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images (1297, 1, 8, 8) and labels, test images (500, ...) and labels."""
    return digits_example.data()


@functools.cache
def efficientnet_lite0() -> torch.nn.Module:
    """Trained EfficientNet-Lite0, input (n, 3, 224, 224), 1,000 classes."""
    return efficientnet_example.build()


@functools.cache
def photos() -> tuple[np.ndarray, np.ndarray]:
    """foolbox's 20 ImageNet photos, ready for EfficientNet-Lite0: (20, 3, 224, 224) float32, labels (20,) int64."""
    import foolbox

    files = sorted((Path(foolbox.__file__).parent / "data").glob("imagenet_*"))
    images = np.stack([efficientnet_example.photo(path) for path in files])
    labels = np.array([int(path.stem.split("_")[2]) for path in files], dtype=np.int64)
    return images, labels


@functools.cache
def minilm() -> torch.nn.Module:
    """Trained MiniLM sentence encoder with pooling; inputs `input_ids`, `attention_mask` (n, 128) int64."""
    return minilm_example.build()


@functools.cache
def minilm_inputs(count: int = 64) -> dict[str, np.ndarray]:
    """Real sentences as token ids and masks, each (count, 128) int64."""
    return minilm_example.tokens(minilm_example.sentences(count))
