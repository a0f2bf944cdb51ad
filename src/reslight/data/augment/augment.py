"""Augment whole uint8 batches, on any device.

Every parameter is a function of (seed, epoch, index of the image), so the result does not depend on how a batch is divided.
torchvision's transform classes draw one set of parameters per call from a global generator, so only its kernels are
used.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from reslight.data.augment.erasing import blank, random_erase
from reslight.data.augment.pca import pca_noise
from reslight.data.augment.randaugment import LEVELS, randaugment, trivialaugment
from reslight.data.rng import Draw, integers
from reslight.messages import UsageError, check_numbers

PadMode = Literal["constant", "reflect"]
Flip = Literal["none", "random", "alternating"]
Policy = Literal["none", "randaugment", "trivialaugment"]


@dataclass(frozen=True)
class Augment:
    """Flip, pad and crop, policy, pca, random erasing, cutout, in this order. The default does nothing."""

    pad: int = 0
    """Pixels added on each side before a random crop of the original size; 0 for no crop."""
    pad_mode: PadMode = "constant"
    """The added pixels: `constant` (see `fill`) or `reflect`, the image mirrored at its edge pixels."""
    fill: int | tuple[int, ...] = 0
    """Value, 0 to 255, of blanked pixels and of pixels from outside the image; one for all channels, or one for each."""
    flip: Flip = "none"
    """Left-right flips: `random` (each image with probability 1/2), or `alternating` (each image in every other epoch,
    half of the images from the first epoch on)."""
    cutout: int = 0
    """Side, in pixels, of a square around a random center that is blanked; it may extend over the edge; 0 for none."""
    policy: Policy = "none"
    """Random operations on color and shape: `randaugment` (`policy_ops` for each image, at level `magnitude`), or
    `trivialaugment` (one for each image, at a random level)."""
    policy_ops: int = 2
    """Operations of RandAugment for each image, one after the other."""
    magnitude: float = 9.0
    """Level of RandAugment's operations, 0 to 30, rounded."""
    magnitude_std: float = 0.0
    """Std of the level, which is drawn for each operation and clipped to 0 to 30; 0 for the same level everywhere."""
    pca: float = 0.0
    """Std of AlexNet's color noise along the principal components of RGB values; the paper uses 0.1; 0 for none."""
    random_erasing: float = 0.0
    """Probability that a random box of an image, of 2 to 33 percent of its area, is blanked; 0 for none."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UsageError: a field that is out of range.
        """
        check_numbers("data.augment", self)
        for name in ("pad", "cutout"):
            if getattr(self, name) < 0:
                raise UsageError(f"data.augment.{name} is {getattr(self, name)}: it must be 0 (off) or more pixels.")
        for name, allowed in (("pad_mode", get_args(PadMode)), ("flip", get_args(Flip)), ("policy", get_args(Policy))):
            if getattr(self, name) not in allowed:
                raise UsageError(f"data.augment.{name} is {getattr(self, name)!r}: it must be one of {', '.join(allowed)}.")
        if any(not 0 <= value <= 255 for value in self._fill_values):
            raise UsageError(f"data.augment.fill is {self.fill}: it must be 0 to 255, the values of pixels before normalization.")
        if self.policy_ops < 1:
            raise UsageError(f"data.augment.policy_ops is {self.policy_ops}: it must be 1 or more. Set policy to none for no operations.")
        for name, most in (("magnitude", LEVELS - 1), ("random_erasing", 1)):
            if not 0 <= getattr(self, name) <= most:
                raise UsageError(f"data.augment.{name} is {getattr(self, name)}: it must be 0 to {most}.")
        for name in ("magnitude_std", "pca"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"data.augment.{name} is {getattr(self, name)}: it must be 0 (off) or more, and finite.")

    def check(self, channels: int, shape: tuple[int, int], bits: int = 8) -> None:
        """Check that the settings fit images.

        Args:
            channels: Channels of the images.
            shape: Their height and width, in pixels.
            bits: Bits of a value, 8 or 16.

        Raises:
            UsageError: a field that does not fit.
        """
        # A wider border would give crops without a pixel of the image, and a larger square would leave none.
        for name, most in (("pad", min(shape) - 1), ("cutout", min(shape))):
            if (value := getattr(self, name)) > most:
                raise UsageError(f"data.augment.{name} is {value}: images have {shape[0]} x {shape[1]} pixels. Use {most} or less.")
        if len(self._fill_values) not in (1, channels):
            raise UsageError(f"data.augment.fill is {self.fill}: it must have 1 value, or {channels}, one for each channel.")
        if self.policy != "none" and channels not in (1, 3):
            raise UsageError(f"data.augment.policy is {self.policy}: it needs images with 1 or 3 channels, not {channels}. Use none.")
        if self.pca and channels != 3:
            raise UsageError(f"data.augment.pca is {self.pca}: it needs RGB images, with 3 channels, not {channels}. Use 0.")
        for name, off in (("policy", "none"), ("pca", 0)):
            if bits != 8 and (value := getattr(self, name)) != off:
                raise UsageError(f"data.augment.{name} is {value}: it needs values of 8 bits, not {bits} (preprocess.bits). Use {off}.")

    def __call__(self, images: Tensor, indices: Tensor, *, seed: int, epoch: int) -> Tensor:
        """Augment a batch.

        Args:
            images: uint8 or uint16 `(N, C, H, W)`; not changed.
            indices: int64 `(N,)` on the same device: each image's number in its split.
            seed: Seed of the run.
            epoch: Epoch, counted from 0.

        Returns:
            The dtype of the images, `(N, C, H, W)`.
        """
        if images.dtype == torch.uint16:  # torch has few kernels for it, and none of the allowed steps computes with values
            return self(images.view(torch.int16), indices, seed=seed, epoch=epoch).view(torch.uint16)
        fill = self._fill_of(images.dtype)
        height, width = images.shape[-2:]
        drawn = self._drawn(indices, height, width, seed, epoch)
        if self.flip != "none":
            images = flip(images, drawn[Draw.FLIP])
        if self.pad:
            images = crop(self._padded(images, fill), drawn[Draw.CROP_Y], drawn[Draw.CROP_X], height, width)
        if self.policy != "none":
            images = self._with_policy(images, indices, seed, epoch)
        if self.pca:
            images = pca_noise(images, indices, std=self.pca, seed=seed, epoch=epoch)
        if self.random_erasing:
            images = random_erase(images, indices, probability=self.random_erasing, fill=fill, seed=seed, epoch=epoch)
        if self.cutout:
            images = cutout(images, drawn[Draw.CUTOUT_Y], drawn[Draw.CUTOUT_X], self.cutout, fill)
        return images

    def _drawn(self, indices: Tensor, height: int, width: int, seed: int, epoch: int) -> dict[Draw, Tensor]:
        """Draw integers, int64 `(N,)` each, in one pass: for a small batch, the number of operations determines the cost."""
        ranges: dict[Draw, int] = {}
        if self.flip == "random":
            ranges[Draw.FLIP] = 2
        if self.pad:
            ranges |= {Draw.CROP_Y: 2 * self.pad + 1, Draw.CROP_X: 2 * self.pad + 1}
        if self.cutout:
            ranges |= {Draw.CUTOUT_Y: height, Draw.CUTOUT_X: width}
        drawn: dict[Draw, Tensor] = {}
        if ranges:
            numbers = integers(seed, epoch, indices, list(ranges), list(ranges.values()))
            drawn = dict(zip(ranges, numbers.unbind(), strict=True))
        if self.flip == "alternating":
            drawn[Draw.FLIP] = (integers(seed, 0, indices, Draw.FLIP_START, 2) + epoch) % 2
        return drawn

    def _with_policy(self, images: Tensor, indices: Tensor, seed: int, epoch: int) -> Tensor:
        if self.policy == "trivialaugment":
            return trivialaugment(images, indices, fill=self._fill_values, seed=seed, epoch=epoch)
        return randaugment(
            images,
            indices,
            ops=self.policy_ops,
            magnitude=self.magnitude,
            magnitude_std=self.magnitude_std,
            fill=self._fill_values,
            seed=seed,
            epoch=epoch,
        )

    @property
    def _fill_values(self) -> tuple[int, ...]:
        return (self.fill,) if isinstance(self.fill, int) else self.fill

    def _fill_of(self, dtype: torch.dtype) -> tuple[int, ...]:
        """Return the fill as values of a dtype; int16 has the bits of uint16."""
        if dtype == torch.uint8:
            return self._fill_values
        return tuple((value * 257 + 2**15) % 2**16 - 2**15 for value in self._fill_values)

    def _padded(self, images: Tensor, fill: tuple[int, ...]) -> Tensor:
        # When it reflects, torchvision refuses a fill for each channel, although it would not use it.
        used = list(fill) if self.pad_mode == "constant" else None
        padded: Tensor = tvf.pad_image(images, [self.pad] * 4, fill=used, padding_mode=self.pad_mode)
        return padded


def flip(images: Tensor, is_flipped: Tensor) -> Tensor:
    """Flip some images left to right.

    Args:
        images: `(N, C, H, W)`.
        is_flipped: int64 `(N,)`: 1 to flip the image, 0 to leave it.

    Returns:
        `(N, C, H, W)`, a copy.
    """
    is_channels_last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    if is_channels_last and images.device.type == "cpu":  # decoded files, large enough for a call for each image
        flipped = torch.empty_like(images)
        for number, is_mirrored in enumerate(is_flipped.tolist()):
            flipped[number] = images[number].flip(-1) if is_mirrored else images[number]
        return flipped
    # Selecting whole images from both versions takes a third of the time of torch.where over their pixels.
    both = torch.cat((images, tvf.horizontal_flip_image(images)))
    chosen = torch.arange(len(images), device=images.device) + is_flipped * len(images)
    if is_channels_last:  # on this layout index_select would copy value by value
        return both.permute(0, 2, 3, 1).index_select(0, chosen).permute(0, 3, 1, 2)
    return both.index_select(0, chosen)


def crop(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Cut a window out of each image.

    Args:
        images: `(N, C, H, W)`, contiguous.
        top: int64 `(N,)`: first row of each window.
        left: int64 `(N,)`: first column.
        height: Rows of all windows.
        width: Columns of all windows.

    Returns:
        `(N, C, height, width)`, a copy.
    """
    count, channels, full_height, full_width = images.shape
    # Row k of `runs` has the `width` values of the batch from value k on. It is a view: rows overlap and take no memory, and
    # index_select copies a row at a time. On a CPU this is four times as fast as indexing a batch of 2-d windows, which
    # copies value by value.
    runs = images.flatten().unfold(0, width, 1)
    device = images.device
    planes = torch.arange(0, images.numel(), full_height * full_width, device=device).view(count, channels, 1)
    rows = torch.arange(0, height * full_width, full_width, device=device)
    starts = (planes + (top * full_width + left).view(count, 1, 1)) + rows
    return runs.index_select(0, starts.flatten()).view(count, channels, height, width)


def cutout(images: Tensor, y: Tensor, x: Tensor, side: int, fill: tuple[int, ...]) -> Tensor:
    """Blank a square of each image (DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552).

    Args:
        images: `(N, C, H, W)`.
        y: int64 `(N,)`: row of the center; `side // 2` rows of the square are above it.
        x: int64 `(N,)`: column of the center; `side // 2` columns are left of it.
        side: Side of the square in pixels.
        fill: Value of the square, one for all channels or one for each.

    Returns:
        `(N, C, H, W)`, a copy.
    """
    return blank(images, y - side // 2, x - side // 2, side, side, fill)
