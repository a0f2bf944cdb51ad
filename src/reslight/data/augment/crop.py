"""Crops and resizing: the only steps that are applied to single images, before the batch.

Random crops are functions of (seed, epoch, index of the image), as all augmentation: the numbers of a batch are drawn in
one pass, and give a box when the image's size is known. The box is that of the whole image, even if a decoder returns a
smaller one, see `reduction`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from reslight.data.rng import NEXT_DRAW, Draw, uniform
from reslight.preprocess import Fitting, Interpolation, Size, center_to, fit, middle, resize_tensor, shape_of

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


class Geometry(ABC):
    """A crop of an image to a fixed size."""

    size: Size
    interpolation: Interpolation

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the result, in pixels."""
        return shape_of(self.size)

    @abstractmethod
    def draw(self, indices: Tensor, seed: int, epoch: int) -> Tensor:
        """Return random numbers in [0, 1), float32 `(N, ...)`, for the images with these indices, int64 `(N,)`."""

    @abstractmethod
    def window(self, height: int, width: int, numbers: Sequence[Any]) -> Window:
        """Return the part of an image of `height` x `width` pixels that is resized, for its row of `draw`."""

    def finish(self, image: Tensor, numbers: Sequence[Any]) -> Tensor:
        """Return the result of a resized part."""
        return image

    def reduction(self, height: int, width: int, numbers: Tensor) -> float:
        """Return how many pixels of an image, in each direction, become one of the result, at least."""
        window = self.window(height, width, numbers.tolist())
        return min(window.height / window.size[0], window.width / window.size[1])

    def largest_reduction(self, height: int, width: int) -> float:
        """Return the largest `reduction` that an image of this size may have."""
        return min(height / self.shape[0], width / self.shape[1])

    def __call__(self, image: Tensor, numbers: Tensor) -> Tensor:
        """Crop and resize.

        Args:
            image: uint8 or uint16 `(C, H, W)`.
            numbers: Its row of `draw`.

        Returns:
            The dtype of the image, `(C, *shape)`.
        """
        drawn = numbers.tolist()
        top, left, height, width, size = self.window(image.shape[-2], image.shape[-1], drawn)
        return self.finish(resized(image[:, top : top + height, left : left + width], size, self.interpolation), drawn)

    def of_reduced(self, image: Image.Image, whole: tuple[int, int], divisor: int, start: tuple[float, float], numbers: Tensor) -> Tensor:
        """Crop and resize what a decoder made of an image.

        Args:
            image: The image, reduced: gray or RGB.
            whole: Height and width of the image in full.
            divisor: By how much the decoder reduced each side.
            start: Row and column of `image` where the whole image begins.
            numbers: The image's row of `draw`.

        Returns:
            uint8 `(C, *shape)`.
        """
        drawn = numbers.tolist()
        top, left, height, width, size = self.window(*whole, drawn)
        # Pillow resizes parts that begin between two pixels: rounded ones would be moved by up to half a pixel of the result.
        y, x = top / divisor + start[0], left / divisor + start[1]
        box = (x, y, min(image.width, x + width / divisor), min(image.height, y + height / divisor))
        how = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[self.interpolation]
        return self.finish(tvf.pil_to_tensor(image.resize(size[::-1], how, box=box)), drawn)


@dataclass(frozen=True)
class RandomResizedCrop(Geometry):
    """Crops a box of random area and shape and resizes it (Szegedy et al. 2014, arXiv:1409.4842, section 6).

    The distribution is that of torchvision's transform of this name.
    """

    size: Size
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
                return Window(int(u_y * (height - h + 1)), int(u_x * (width - w + 1)), h, w, self.shape)
        w, h = width, height
        if width / height < self.ratio[0]:
            h = max(1, round(width / self.ratio[0]))
        elif width / height > self.ratio[1]:
            w = max(1, round(height * self.ratio[1]))
        return Window((height - h) // 2, (width - w) // 2, h, w, self.shape)


@dataclass(frozen=True)
class ScaleJitter(Geometry):
    """Resizes the short side to a random length and crops a random part: the paper's (section 3.4), after VGG."""

    size: Size
    """Height and width of the result, in pixels."""
    short_side: tuple[int, int] = (256, 480)
    """Least and greatest length of the short side, in pixels."""
    interpolation: Interpolation = "bilinear"

    def draw(self, indices: Tensor, seed: int, epoch: int) -> Tensor:
        """Return float32 `(N, 3)`: length, row and column."""
        return uniform(seed, epoch, indices, (Draw.JITTER, Draw.RESIZED_Y, Draw.RESIZED_X)).T

    def window(self, height: int, width: int, numbers: Sequence[Any]) -> Window:
        """Return the whole image, and its random size."""
        low, high = self.short_side
        return Window(0, 0, height, width, scaled_size(low + int(numbers[0] * (high - low + 1)), height, width))

    def finish(self, image: Tensor, numbers: Sequence[Any]) -> Tensor:
        """Crop a random part."""
        (height, width), (tall, wide) = image.shape[-2:], self.shape
        top, left = int(numbers[1] * (height - tall + 1)), int(numbers[2] * (width - wide + 1))
        return image[:, top : top + tall, left : left + wide]


@dataclass(frozen=True)
class Center(Geometry):
    """Resizes and crops the center, or pads, as `Preprocess` does in evaluation."""

    size: Size
    """Height and width of the result, in pixels."""
    resize: int | None
    """Length of the short side that is resized for, in pixels; that of `size` if None."""
    interpolation: Interpolation = "bilinear"
    how: Fitting = "center"
    """See `Preprocess.crop`."""
    fill: tuple[int, ...] = ()
    """Value of added pixels, 0 to 255, for each channel."""

    def draw(self, indices: Tensor, seed: int, epoch: int) -> Tensor:
        """Return float32 `(N, 0)`: the crop is not random."""
        return torch.empty(len(indices), 0)

    def window(self, height: int, width: int, numbers: Sequence[Any]) -> Window:
        """Return the whole image, or the middle of a very long one, and its size."""
        part, size = fit(height, width, self.shape, self.resize, self.how)
        return Window(*part, size)

    def finish(self, image: Tensor, numbers: Sequence[Any]) -> Tensor:
        """Crop the center, or pad."""
        return center_to(image, self.shape, self.fill)


def without_strip(image: Tensor) -> Tensor:
    """Return the image, or the middle of a very long one, see `preprocess.middle`."""
    top, left, height, width = middle(image.shape[1], image.shape[2])
    return image[:, top : top + height, left : left + width]


def scaled_size(side: int, height: int, width: int) -> tuple[int, int]:
    """Return height and width scaled to a short side of `side` pixels, the long side rounded down, as in torchvision."""
    return (side, int(side * width / height)) if height <= width else (int(side * height / width), side)


def resized(image: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """Resize `(C, H, W)`, antialiased; the result has the memory layout of a decoder's output, (H, W, C)."""
    if tuple(image.shape[-2:]) == size:
        return image
    # torchvision's fast kernel needs a whole batch in channels_last; for a part of an image it works on planes, at half the speed.
    # The result is the same to the bit.
    return resize_tensor(image.permute(1, 2, 0).contiguous().permute(2, 0, 1).unsqueeze(0), size, interpolation)[0]
