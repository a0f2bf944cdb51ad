"""Several views of each test image, whose probabilities are averaged: the paper's two test protocols (section 3.4).

Views of the same shape are one tensor, with the number of the image that each shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from reslight.data.augment.crop import resized, scaled_size, without_strip
from reslight.preprocess import Interpolation, Size, fit, shape_of


class Views(NamedTuple):
    """Views of the same shape, of the images of a batch."""

    images: Tensor
    """`(M, C, H, W)`: uint8 from the loader; normalized, in the network's dtype, on the device."""
    owners: Tensor
    """int64 `(M,)`: the number in the batch of the image that each view shows."""


@dataclass(frozen=True)
class TenCrop:
    """Crops the four corners and the center of the resized image, and mirrors them (Krizhevsky et al. 2012, section 4.1)."""

    size: Size
    """Height and width, in pixels, of a crop."""
    resize: int
    """Length of the short side that is resized for, in pixels."""
    interpolation: Interpolation = "bilinear"

    def __call__(self, image: Tensor) -> list[Tensor]:
        """Return one tensor, uint8 `(10, C, *size)`, for an image, uint8 `(C, H, W)`."""
        shape = shape_of(self.size)
        height, width = image.shape[-2:]
        (top, left, height, width), size = fit(height, width, shape, self.resize)
        image = resized(image[:, top : top + height, left : left + width], size, self.interpolation)
        return [torch.stack(tvf.ten_crop(image, list(shape)))]


@dataclass(frozen=True)
class MultiScale:
    """Resizes the whole image to several sizes, and mirrors each, for a network that is fully convolutional up to its global mean.

    The logits of such a network for a large image are the mean over all positions (Simonyan and Zisserman 2014, section 3.2,
    whom the paper follows; the mirrored images are theirs).
    """

    short_sides: Sequence[int]
    """Lengths of the short side, in pixels."""
    interpolation: Interpolation = "bilinear"

    def __call__(self, image: Tensor) -> list[Tensor]:
        """Return one tensor, uint8 `(2, C, H', W')`, for each length, for an image, uint8 `(C, H, W)`."""
        image = without_strip(image)
        sizes = [scaled_size(side, *image.shape[-2:]) for side in self.short_sides]
        scaled = [resized(image, size, self.interpolation) for size in sizes]
        return [torch.stack((one, tvf.horizontal_flip_image(one))) for one in scaled]


def group_by_shape(views: Sequence[Sequence[Tensor]]) -> list[Views]:
    """Combine views of the same shape.

    Args:
        views: Tensors `(n, C, H, W)` of each image of a batch, in order.
    """
    by_shape: dict[torch.Size, list[tuple[Tensor, int]]] = {}
    for number, tensors in enumerate(views):
        for tensor in tensors:
            by_shape.setdefault(tensor.shape[1:], []).append((tensor, number))
    return [
        Views(torch.cat([tensor for tensor, _ in group]), torch.tensor([number for tensor, number in group for _ in range(len(tensor))]))
        for group in by_shape.values()
    ]
