"""Mix images and labels in pairs: mixup (Zhang et al. 2017, arXiv:1710.09412) and cutmix (Yun et al. 2019, arXiv:1905.04899)."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from reslight.data.augment.erasing import inside
from reslight.data.rng import Draw, integers, uniform
from reslight.messages import UsageError, check_numbers

_KNOTS = 2**17
"""Steps of lambda in a table: an interpolated value is in the same step as the true one, so its error is below 1e-5."""


class Box(NamedTuple):
    """A box in each image, within its edges: int64 `(N,)` each."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


@dataclass(frozen=True)
class Mix:
    """Mix each image and its label with those of its neighbor in the batch. The default does nothing.

    Images 2k and 2k + 1 of a batch are partners, which is random because the order of an epoch is random; each has a lambda
    and a box of its own. So a mixture does not depend on how a global batch is divided over devices and accumulation steps,
    provided that each part is even and no image is skipped. The last image of an odd batch is not mixed.
    """

    mixup: float = 0.0
    """Alpha of mixup: lambda, the image's share of every pixel, is drawn from Beta(alpha, alpha); 0 for no mixup."""
    cutmix: float = 0.0
    """Alpha of cutmix: lambda, the image's share of the area unless the box extends over the edge, is drawn from Beta(alpha,
    alpha); 0 for no cutmix. If both are on, each is used with probability 1/2."""
    prob: float = 1.0
    """Probability that an image is mixed."""
    until_epoch: int | None = None
    """First epoch, counted from 0, without mixing; null to mix to the end."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UsageError: a field that is out of range.
        """
        check_numbers("data.mix", self)
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"data.mix.{name} is {getattr(self, name)}: it must be 0 (off) or more, and finite. 0.2 and 1 are usual.")
        if not 0 <= self.prob <= 1:
            raise UsageError(f"data.mix.prob is {self.prob}: it must be 0 to 1, a probability.")
        if self.until_epoch is not None and self.until_epoch < 0:
            raise UsageError(f"data.mix.until_epoch is {self.until_epoch}: it must be 0 or more. Use null to mix to the end.")

    def is_on(self, epoch: int) -> bool:
        """Return whether images are mixed in an epoch, counted from 0."""
        return max(self.mixup, self.cutmix) > 0 and self.prob > 0 and (self.until_epoch is None or epoch < self.until_epoch)

    def __call__(
        self, images: Tensor, labels: Tensor, indices: Tensor, *, num_classes: int, seed: int, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            images: Floating-point `(N, C, H, W)`, normalized; not changed.
            labels: int64 `(N,)`; of several classes for an image, float32 `(N, num_classes)`.
            indices: int64 `(N,)`: each image's number in its split.
            num_classes: Number of classes.
            seed: Seed of the run.
            epoch: Epoch, counted from 0.

        Returns:
            Images of the same dtype and memory format, and float32 `(N, num_classes)` probabilities; in an epoch without
            mixing, `images` and `labels` unchanged.
        """
        if not self.is_on(epoch):
            return images, labels
        own, of_pixels = self._shares(indices, images.shape[-2], images.shape[-1], seed, epoch)
        of_classes = labels if labels.ndim == 2 else (labels.unsqueeze(1) == torch.arange(num_classes, device=labels.device)).float()
        # Shares are float32 for bfloat16 images too: rounded to 8 bits they would differ from those of the labels, and each
        # pixel would be rounded three times instead of once.
        return mixture(images, of_pixels), mixture(of_classes, own.unsqueeze(1))

    def _shares(self, indices: Tensor, height: int, width: int, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        """Return each image's share of its label, float32 `(N,)`, and of its pixels, `(N, 1, H, W)` or `(N, 1, 1, 1)`."""
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
            own = own - (box.height * box.width).double() / (height * width)  # float64: whole numbers would be divided in float32
            of_pixels = of_pixels.masked_fill(inside(height, width, *box), 0)
        return own.float(), of_pixels.float()


def mixture(values: Tensor, own: Tensor) -> Tensor:
    """Return `own * value + (1 - own) * partner's value`, computed in float32 or wider.

    Args:
        values: Floating-point `(N, ...)`; not changed. Rows 2k and 2k + 1 are partners.
        own: float32 `(N, ...)`, which broadcasts; 1 for the last row of an odd number.

    Returns:
        Mixtures of the shape and dtype of `values`.
    """
    paired = len(values) // 2 * 2
    partners = torch.empty_like(values, dtype=torch.promote_types(values.dtype, torch.float32))
    partners[0:paired:2], partners[1:paired:2], partners[paired:] = values[1:paired:2], values[0:paired:2], values[paired:]
    # Two roundings: a fused step may round differently at the end of a tensor, so that the result would depend on the batch.
    return partners.mul_(1 - own).add_(values * own).to(values.dtype)


def cut_box(own: Tensor, y: Tensor, x: Tensor, height: int, width: int) -> Box:
    """Return the box that shows the partner, clipped at the edges, as in torchvision.

    Args:
        own: float64 `(N,)`: lambda, the image's share of the area if the box is not clipped.
        y: int64 `(N,)`: row of the center.
        x: int64 `(N,)`: column of the center.
        height: Height of the images.
        width: Width of the images.
    """
    half = 0.5 * (1 - own).sqrt()
    half_height, half_width = (half * height).long(), (half * width).long()
    top, left = (y - half_height).clamp(min=0), (x - half_width).clamp(min=0)
    return Box(top, left, (y + half_height).clamp(max=height) - top, (x + half_width).clamp(max=width) - left)


def quantile(u: Tensor, alpha: float) -> Tensor:
    """Return the quantiles of Beta(alpha, alpha) for probabilities `u`.

    Args:
        u: float64 multiples of 2**-24 in [0, 1), of any shape; the middle of each step is used.
        alpha: Parameter of the distribution, above 0.

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
    """Return the cumulative probability of Beta(alpha, alpha) at 2**17 + 1 evenly spaced values."""
    import numpy as np
    from scipy.special import betainc

    return torch.from_numpy(betainc(alpha, alpha, np.linspace(0, 1, _KNOTS + 1))).to(device)
