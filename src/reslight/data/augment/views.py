"""Several views of each test image, whose probabilities are averaged: the paper's two ways of testing (section 3.4).

Views of one shape are one tensor, whichever images they are of; each says whose it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from reslight.data.augment.crop import resized, shorter_to
from reslight.preprocess import Interpolation, middle


class Views(NamedTuple):
    """Views of one shape, of the images of a batch."""

    images: Tensor
    """`(M, C, H, W)`: uint8 from the loader; normalised, in the network's dtype, once on the device."""
    owners: Tensor
    """int64 `(M,)`: the place in the batch of the image that each shows."""


@dataclass(frozen=True)
class TenCrop:
    """The four corners and the middle of the resized image, and the same mirrored (Krizhevsky et al. 2012, section 4.1)."""

    size: int
    """Height and width, in pixels, of a crop."""
    resize: int
    """Length of the shorter side, in pixels."""
    interpolation: Interpolation = "bilinear"

    def __call__(self, image: Tensor) -> list[Tensor]:
        """uint8 `(C, H, W)` -> one tensor `(10, C, size, size)`."""
        image = resized(whole(image), shorter_to(self.resize, *whole(image).shape[-2:]), self.interpolation)
        return [torch.stack(tvf.ten_crop(image, [self.size, self.size]))]


@dataclass(frozen=True)
class MultiScale:
    """The whole image at several sizes, each also mirrored, for a network that is fully convolutional up to its mean over the image.

    Such a network's answer to a large image is the mean of its scores all over it (Simonyan and Zisserman 2014, section
    3.2, whom the paper follows; the mirrored images are theirs).
    """

    short_sides: Sequence[int]
    """Lengths of the shorter side, in pixels."""
    interpolation: Interpolation = "bilinear"

    def __call__(self, image: Tensor) -> list[Tensor]:
        """uint8 `(C, H, W)` -> for each length a tensor `(2, C, H', W')`."""
        image = whole(image)
        sizes = [shorter_to(side, *image.shape[-2:]) for side in self.short_sides]
        scaled = [resized(image, size, self.interpolation) for size in sizes]
        return [torch.stack((one, tvf.horizontal_flip_image(one))) for one in scaled]


def whole(image: Tensor) -> Tensor:
    """The image, or the middle of one that is a strip, see `preprocess.middle`."""
    top, left, height, width = middle(image.shape[1], image.shape[2])
    return image[:, top : top + height, left : left + width]


def group_by_shape(views: Sequence[Sequence[Tensor]]) -> list[Views]:
    """Put views of the same shape together.

    Args:
        views: Of each image of a batch, in order, its tensors `(n, C, H, W)`.
    """
    by_shape: dict[torch.Size, list[tuple[Tensor, int]]] = {}
    for place, tensors in enumerate(views):
        for tensor in tensors:
            by_shape.setdefault(tensor.shape[1:], []).append((tensor, place))
    return [
        Views(torch.cat([tensor for tensor, _ in group]), torch.tensor([place for tensor, place in group for _ in range(len(tensor))]))
        for group in by_shape.values()
    ]
