"""`Synthetic`: images made by a hash, the same on every machine and easy to learn; for tests and benchmarks.

A class is a coarse pattern of random blocks; an image is its class's pattern under noise. Integers only, so no rounding
can differ.
"""

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from reslight.data.augment.augment import Augment
from reslight.data.augment.mixup import Mix
from reslight.data.datamodule import SPLIT_SEED, ImageDataModule
from reslight.data.loading.split import Split
from reslight.data.rng import Draw, bits
from reslight.messages import UsageError
from reslight.preprocess import Preprocess

_BLOCKS = 4  # a pattern is 4 x 4 blocks: coarse enough to survive crops, and many enough for a thousand classes
_NOISE_SHARE = 96  # of 256: noise makes up 3/8 of a pixel, the pattern the rest
_CHUNK_BYTES = 2**25  # hashed at a time, to bound memory

NO_AUGMENT = Augment()


@dataclass(frozen=True)
class SyntheticImages:
    """What images to make."""

    size: int = 32
    """Height and width in pixels."""
    in_channels: int = 3
    """Channels."""
    num_classes: int = 10
    """Classes; every split has about as many images of each."""
    train_size: int = 512
    """Training images, those for validation included."""
    test_size: int = 128
    """Test images."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: A field is below 1.
        """
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise UsageError(f"data.images.{field.name} is {getattr(self, field.name)}, must be at least 1")


DEFAULT_IMAGES = SyntheticImages()


class Synthetic(ImageDataModule):
    """Made-up images of any size, channels and number of classes."""

    def __init__(
        self,
        images: SyntheticImages = DEFAULT_IMAGES,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        val_size: int = 128,
        seed: int | None = None,
        augment: Augment = NO_AUGMENT,
        mix: Mix = Mix(),
    ) -> None:
        """Check and keep the settings.

        Args:
            images: What images to make; they do not depend on the seed.
            batch_size: Training images per optimizer step, over all devices and accumulation steps.
            eval_batch_size: Images per evaluation batch, over all devices; batch_size when left out.
            val_size: Images carved from the training set for validation, the same ones in every run; 0 for no
                validation.
            seed: Seed of the order and the augmentation; seed_everything's when left out, 0 where there is none.
            augment: Augmentation of training images.
            mix: Training images mixed with one another (mixup, cutmix).

        Raises:
            ValueError: A setting is out of range.
        """
        channels = images.in_channels
        super().__init__(
            name="synthetic",
            labels=[f"class {number}" for number in range(images.num_classes)],
            preprocess=Preprocess(size=images.size, mean=(0.5,) * channels, std=(0.25,) * channels),
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=val_size,
            seed=seed,
            augment=augment,
            mix=mix,
        )
        self.images = images

    def load_split(self, part: Literal["train", "test"]) -> Split:
        """Make the training or the test images."""
        spec = self.images
        # the test images are numbered after the training images: other noise
        first, count = (0, spec.train_size) if part == "train" else (spec.train_size, spec.test_size)
        numbers = torch.arange(first, first + count)
        labels = numbers % spec.num_classes
        return Split.from_images(_make(numbers, labels, spec), labels)


def _make(numbers: Tensor, labels: Tensor, spec: SyntheticImages) -> Tensor:
    """Return uint8 `(N, C, H, W)`: the images of these numbers and classes."""
    channels, size = spec.in_channels, spec.size
    blocks = _random_bytes(torch.arange(spec.num_classes), channels * _BLOCKS**2, Draw.PROTOTYPE)
    place = torch.arange(size) * _BLOCKS // size  # the block of each pixel, along a side
    patterns = blocks.view(-1, channels, _BLOCKS, _BLOCKS)[:, :, place][..., place]
    images = torch.empty(len(numbers), channels, size, size, dtype=torch.uint8)
    for rows in torch.split(torch.arange(len(numbers)), max(1, _CHUNK_BYTES // (channels * size**2))):
        noise = _random_bytes(numbers[rows], channels * size**2, Draw.NOISE).view(-1, channels, size, size)
        mixed = patterns[labels[rows]].to(torch.int32) * (256 - _NOISE_SHARE) + noise.to(torch.int32) * _NOISE_SHARE
        images[rows] = (mixed >> 8).to(torch.uint8)
    return images


def _random_bytes(numbers: Tensor, count: int, draw: Draw) -> Tensor:
    """Return `count` random bytes, uint8 `(N, count)`, for each of the `numbers`, int64 `(N,)`."""
    words = -(-count // 8)
    index = numbers.view(-1, 1) * words + torch.arange(words)
    hashed = bits(SPLIT_SEED, 0, index, draw)
    # bytes of a word from the lowest up, by arithmetic: a view as uint8 would depend on the machine's byte order
    as_bytes = (hashed.unsqueeze(-1) >> torch.arange(0, 64, 8)) & 255
    return as_bytes.to(torch.uint8).flatten(1)[:, :count]
