"""Mixtures of two images and their labels: mixup (Zhang et al. 2017, arXiv:1710.09412) and cutmix (Yun et al. 2019, arXiv:1905.04899)."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from reslight.data.augment.erasing import inside
from reslight.data.rng import Draw, integers, uniform
from reslight.messages import UsageError

_KNOTS = 2**17
"""Steps of lambda in a table: an interpolated value lies in the same step as the true one, so it is wrong by less than 1e-5."""


class Box(NamedTuple):
    """A box in each image, within its edges: int64 `(N,)` each."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


@dataclass(frozen=True)
class Mix:
    """Mix each image and its label with those of its neighbour in the batch. The default does nothing.

    The image at place 2k and the one at place 2k + 1 are each other's partner, which are random partners, as the order
    of an epoch is random; each has a lambda and a box of its own. So a mixture does not depend on how a global batch is
    cut up over devices and accumulation steps, as long as each part is even and no
    image is skipped. The last of an odd batch is left as it is.
    """

    mixup: float = 0.0
    """A of the Beta(A, A) that mixup's lambda is drawn from, the image's share in every pixel; 0 for no mixup."""
    cutmix: float = 0.0
    """A of the Beta(A, A) that cutmix's lambda is drawn from, the image's share of the area, where the box does not reach
    over the edge; 0 for no cutmix. With both on, an image takes either with probability 1/2."""
    prob: float = 1.0
    """Probability of an image to be mixed at all."""
    until_epoch: int | None = None
    """First epoch, counted from 0, in which nothing is mixed any more; to the end when left out."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: A field is out of range.
        """
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"mix.{name} is {getattr(self, name)}, must be 0 (off) or more, and finite; 0.2 and 1 are usual")
        if not 0 <= self.prob <= 1:
            raise UsageError(f"mix.prob is {self.prob}, must be 0 to 1, a probability")
        if self.until_epoch is not None and self.until_epoch < 0:
            raise UsageError(f"mix.until_epoch is {self.until_epoch}, must be 0 or more, or null to mix to the end")

    def is_on(self, epoch: int) -> bool:
        """Say whether anything is mixed in an epoch, counted from 0."""
        return max(self.mixup, self.cutmix) > 0 and self.prob > 0 and (self.until_epoch is None or epoch < self.until_epoch)

    def __call__(
        self, images: Tensor, labels: Tensor, indices: Tensor, *, num_classes: int, seed: int, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            images: Floating-point `(N, C, H, W)`, normalised; not changed.
            labels: int64 `(N,)`.
            indices: int64 `(N,)`: each image's number in its split.
            num_classes: Number of classes.
            seed: Seed of the run.
            epoch: Epoch, counted from 0.

        Returns:
            Images of the same dtype and memory format, and float32 `(N, num_classes)` probabilities; both as they were
            in an epoch without mixing.
        """
        if not self.is_on(epoch):
            return images, labels
        own, of_pixels = self._shares(indices, images.shape[-2], images.shape[-1], seed, epoch)
        one_hot = (labels.unsqueeze(1) == torch.arange(num_classes, device=labels.device)).float()
        # Weights stay float32 for networks of bfloat16 too: rounded to its 8 bits they would not be those of the labels,
        # and each pixel would be rounded three times instead of once.
        return mixture(images, of_pixels), mixture(one_hot, own.unsqueeze(1))

    def _shares(self, indices: Tensor, height: int, width: int, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        """Each image's own share in its label, float32 `(N,)`, and in its pixels, `(N, 1, H, W)` or `(N, 1, 1, 1)`."""
        u_mixed, u_lambda = uniform(seed, epoch, indices, (Draw.MIX, Draw.MIX_LAMBDA)).double()
        is_mixed = u_mixed < self.prob
        is_mixed &= torch.arange(len(indices), device=indices.device) < len(indices) // 2 * 2
        is_cut = torch.full_like(is_mixed, self.cutmix > 0)
        if self.mixup and self.cutmix:
            is_cut = integers(seed, epoch, indices, Draw.MIX_KIND, 2) == 1
        own = torch.ones_like(u_lambda)
        if self.mixup:
            own = torch.where(is_mixed & ~is_cut, quantile(u_lambda, self.mixup), own)
        of_pixels = own.view(-1, 1, 1, 1)
        if self.cutmix:
            y, x = integers(seed, epoch, indices, (Draw.MIX_Y, Draw.MIX_X), (height, width))
            box = cut_box(quantile(u_lambda, self.cutmix), y, x, height, width)
            box = box._replace(height=box.height * (is_mixed & is_cut))
            own = own - (box.height * box.width).double() / (height * width)  # whole numbers would be divided in float32
            of_pixels = of_pixels.masked_fill(inside(height, width, *box), 0)
        return own.float(), of_pixels.float()


def mixture(values: Tensor, own: Tensor) -> Tensor:
    """Return `own * value + (1 - own) * partner's value`, computed in float32 or wider.

    Args:
        values: Floating-point `(N, ...)`; not changed. Place 2k and place 2k + 1 are partners.
        own: float32 `(N, ...)`, which broadcasts; 1 for the last of an odd number.

    Returns:
        As `values`.
    """
    paired = len(values) // 2 * 2
    partners = torch.empty_like(values, dtype=torch.promote_types(values.dtype, torch.float32))
    partners[0:paired:2], partners[1:paired:2], partners[paired:] = values[1:paired:2], values[0:paired:2], values[paired:]
    # Separate roundings: one fused step may round otherwise at the end of a tensor, and so at another place in another batch
    return partners.mul_(1 - own).add_(values * own).to(values.dtype)


def cut_box(own: Tensor, y: Tensor, x: Tensor, height: int, width: int) -> Box:
    """Return the box of the other image, clipped at the edges, as torchvision has it.

    Args:
        own: float64 `(N,)`: lambda, the share that the image would keep of an area without edges.
        y: int64 `(N,)`: row of the center.
        x: int64 `(N,)`: column of the center.
        height: Of the images.
        width: Of the images.
    """
    half = 0.5 * (1 - own).sqrt()
    half_height, half_width = (half * height).long(), (half * width).long()
    top, left = (y - half_height).clamp(min=0), (x - half_width).clamp(min=0)
    return Box(top, left, (y + half_height).clamp(max=height) - top, (x + half_width).clamp(max=width) - left)


def quantile(u: Tensor, alpha: float) -> Tensor:
    """Return the values below which Beta(alpha, alpha) lies with probabilities `u`.

    Args:
        u: float64 multiples of 2**-24 in [0, 1), of any shape; the middle of the step is taken.
        alpha: Above 0.

    Returns:
        float64 of the shape of `u`, correct to 1e-5.
    """
    below = _probabilities(alpha, u.device)
    u = u + 2.0**-25
    upper = torch.searchsorted(below, u).clamp(1, _KNOTS)
    low, high = below[upper - 1], below[upper]
    return (upper - 1 + (u - low) / (high - low)) / _KNOTS


@lru_cache(maxsize=16)
def _probabilities(alpha: float, device: torch.device) -> Tensor:
    """The probability of Beta(alpha, alpha) below each of 2**17 + 1 evenly spaced values."""
    import numpy as np
    from scipy.special import betainc

    return torch.from_numpy(betainc(alpha, alpha, np.linspace(0, 1, _KNOTS + 1))).to(device)
