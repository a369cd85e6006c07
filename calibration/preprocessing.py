"""`Preprocessing`: how an image file becomes one input of the model."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

Size = Annotated[int, Field(gt=0, le=16384)]
Channels = tuple[float, ...]

#: Pixels of a resized image; Pillow refuses to decode more than this.
MOST_PIXELS = 2 * 89_478_485


class Preprocessing(BaseModel):
    """Resize, crop, then (pixel * scale - mean) / std, with pixels from 0 to 255.

    Attributes:
        resize: the shorter side in pixels, or (height, width); ``None`` keeps the size.
        crop: side of the central crop in pixels, or (height, width); ``None`` keeps all.
        interpolation: of the resize.
        color: channel order of the model.
        scale: factor on pixel values, 1/255 unless given.
        mean, std: one value, or one a channel in the order of ``color``, applied after ``scale``.
        layout: axis order of the model's input.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    resize: Size | tuple[Size, Size] | None = None
    crop: Size | tuple[Size, Size] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    color: Literal["rgb", "bgr", "gray"] = "rgb"
    scale: float = Field(default=1 / 255, gt=0)
    mean: Channels = (0.0,)
    std: Channels = (1.0,)
    layout: Literal["NCHW", "NHWC"] = "NCHW"

    @model_validator(mode="after")
    def _check(self) -> Preprocessing:
        channels = 1 if self.color == "gray" else 3
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ValueError(f"{name} needs 1 or {channels} values for {self.color}, found {len(values)}")
        if any(value == 0 for value in self.std):
            raise ValueError("std must not be 0: the pixels are divided by it")
        return self

    def apply(self, image: Image.Image) -> NDArray[np.float32]:
        """Return shape (channels, height, width) or (height, width, channels), float32, no batch axis.

        Raises:
            ValueError: the resized image would have more than `MOST_PIXELS`.
        """
        image = image.convert("L" if self.color == "gray" else "RGB")
        if self.resize is not None:
            size = self._resized(image.size)
            if size[0] * size[1] > MOST_PIXELS:
                raise ValueError(f"resizing {image.size[0]}x{image.size[1]} gives {size[0]}x{size[1]} pixels")
            image = image.resize(size, Image.Resampling[self.interpolation.upper()])
        if self.crop is not None:
            image = _centre(image, *((self.crop, self.crop) if isinstance(self.crop, int) else self.crop))
        pixels = np.asarray(image, np.float32)
        pixels = pixels[..., None] if self.color == "gray" else pixels
        if self.color == "bgr":
            pixels = pixels[..., ::-1]
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        values = (pixels * np.float32(self.scale) - mean) / std
        return np.ascontiguousarray(values.transpose(2, 0, 1) if self.layout == "NCHW" else values)

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) after the resize; a single number scales the shorter side and keeps the proportions."""
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        assert self.resize is not None
        width, height = size
        short = min(width, height)
        return round(width * self.resize / short), round(height * self.resize / short)


def _centre(image: Image.Image, height: int, width: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
