"""Crops and resizing: the only steps that are applied to single images, before the batch.

Random crops are functions of (seed, epoch, index of the image), as all augmentation: the numbers of a batch are drawn in
one pass, and give a box when the image's size is known.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from reslight.data.rng import NEXT_DRAW, Draw, uniform
from reslight.preprocess import Interpolation, middle

ATTEMPTS = 10
"""Random boxes that are tried, as in torchvision, before the center is taken."""


class Window(NamedTuple):
    """A part of an image, and the size that it is resized to."""

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]
    """Height and width, in pixels."""


class Geometry(Protocol):
    """A crop of an image to a fixed size."""

    @property
    def size(self) -> int:
        """Height and width of the result, in pixels."""

    def draw(self, indices: Tensor, seed: int, epoch: int) -> Tensor:
        """Return random numbers in [0, 1), float32 `(N, ...)`, for the images with these indices, int64 `(N,)`."""

    def __call__(self, image: Tensor, numbers: Tensor) -> Tensor:
        """Return uint8 `(C, size, size)` for an image, uint8 `(C, H, W)`, and its row of `draw`."""


@dataclass(frozen=True)
class RandomResizedCrop:
    """Crops a box of random area and shape and resizes it (Szegedy et al. 2014, arXiv:1409.4842, section 6).

    The distribution is that of torchvision's transform of this name.
    """

    size: int
    """Height and width of the result, in pixels."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Least and greatest share of the image's area."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and greatest width divided by height."""
    interpolation: Interpolation = "bilinear"

    def draw(self, indices: Tensor, seed: int, epoch: int) -> Tensor:
        """Return float32 `(N, 10, 4)`: area, ratio, row and column of each attempt."""
        attempts = indices.unsqueeze(1) + torch.arange(ATTEMPTS) * NEXT_DRAW
        draws = (Draw.RESIZED_AREA, Draw.RESIZED_RATIO, Draw.RESIZED_Y, Draw.RESIZED_X)
        return uniform(seed, epoch, attempts, draws).permute(1, 2, 0)

    def window(self, height: int, width: int, numbers: Sequence[Sequence[float]]) -> Window:
        """Return the box in an image of `height` x `width` pixels: the first attempt within the image, else its center."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for u_area, u_ratio, u_y, u_x in numbers:
            area = height * width * (self.scale[0] + (self.scale[1] - self.scale[0]) * u_area)
            ratio = math.exp(low + (high - low) * u_ratio)
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return Window(int(u_y * (height - h + 1)), int(u_x * (width - w + 1)), h, w, (self.size, self.size))
        w, h = width, height
        if width / height < self.ratio[0]:
            h = max(1, round(width / self.ratio[0]))
        elif width / height > self.ratio[1]:
            w = max(1, round(height * self.ratio[1]))
        return Window((height - h) // 2, (width - w) // 2, h, w, (self.size, self.size))

    def __call__(self, image: Tensor, numbers: Tensor) -> Tensor:
        """Crop and resize."""
        window = self.window(image.shape[1], image.shape[2], numbers.tolist())
        part = image[:, window.top : window.top + window.height, window.left : window.left + window.width]
        return resized(part, window.size, self.interpolation)


@dataclass(frozen=True)
class ScaleJitter:
    """Resizes the short side to a random length and crops a random square: the paper's (section 3.4), after VGG."""

    size: int
    """Height and width of the result, in pixels."""
    short_side: tuple[int, int] = (256, 480)
    """Least and greatest length of the short side, in pixels."""
    interpolation: Interpolation = "bilinear"

    def draw(self, indices: Tensor, seed: int, epoch: int) -> Tensor:
        """Return float32 `(N, 3)`: length, row and column."""
        return uniform(seed, epoch, indices, (Draw.JITTER, Draw.RESIZED_Y, Draw.RESIZED_X)).T

    def __call__(self, image: Tensor, numbers: Tensor) -> Tensor:
        """Resize and crop."""
        u_length, u_y, u_x = numbers.tolist()
        low, high = self.short_side
        image = resized(image, scaled_size(low + int(u_length * (high - low + 1)), *image.shape[-2:]), self.interpolation)
        height, width = image.shape[-2:]
        top, left = int(u_y * (height - self.size + 1)), int(u_x * (width - self.size + 1))
        return image[:, top : top + self.size, left : left + self.size]


@dataclass(frozen=True)
class Center:
    """Resizes the short side and crops the center, as `Preprocess` does in evaluation."""

    size: int
    """Height and width of the result, in pixels."""
    resize: int
    """Length of the short side, in pixels."""
    interpolation: Interpolation = "bilinear"

    def draw(self, indices: Tensor, seed: int, epoch: int) -> Tensor:
        """Return float32 `(N, 0)`: the crop is not random."""
        return torch.empty(len(indices), 0)

    def __call__(self, image: Tensor, numbers: Tensor) -> Tensor:
        """Resize and crop."""
        image = without_strip(image)
        image = resized(image, scaled_size(self.resize, *image.shape[-2:]), self.interpolation)
        height, width = image.shape[-2:]
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return image[:, top : top + self.size, left : left + self.size]


def without_strip(image: Tensor) -> Tensor:
    """Return the image, or the middle of a very long one, see `preprocess.middle`."""
    top, left, height, width = middle(image.shape[1], image.shape[2])
    return image[:, top : top + height, left : left + width]


def scaled_size(side: int, height: int, width: int) -> tuple[int, int]:
    """Return height and width scaled to a short side of `side` pixels, the long side rounded down, as in torchvision."""
    return (side, int(side * width / height)) if height <= width else (int(side * height / width), side)


def resized(image: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """Resize uint8 `(C, H, W)`, antialiased; the result has the memory layout of a decoder's output, (H, W, C)."""
    if tuple(image.shape[-2:]) == size:
        return image
    # torchvision's fast kernel needs a whole batch in channels_last; for a part of an image it works on planes, at half the speed.
    # The result is the same to the bit.
    batch = image.permute(1, 2, 0).contiguous().permute(2, 0, 1).unsqueeze(0)
    out: Tensor = tvf.resize_image(batch, list(size), InterpolationMode(interpolation), antialias=True)
    return out[0]
