"""`Digits`: 1,797 handwritten digits of 8x8 pixels that come with scikit-learn. No download, seconds to train.

Source: https://archive.ics.uci.edu/dataset/80 (E. Alpaydin, C. Kaynak 1998), the part that scikit-learn ships, CC BY
4.0.
"""

from typing import Literal

import torch

from reslight.data.augment.augment import Augment
from reslight.data.augment.mixup import Mix
from reslight.data.datamodule import SPLIT_SEED, ImageDataModule
from reslight.data.loading.split import Split, carve
from reslight.data.rng import Draw
from reslight.preprocess import Preprocess

TEST_SIZE = 360
"""One in five; the set has no official test split of its own. One image is 0.28 points of accuracy."""

PREPROCESS = Preprocess(size=8, mean=(0.3051,), std=(0.3755,))
"""Statistics of the 1,437 training images, validation included."""

AUGMENT = Augment(pad=1)
"""A mirrored digit is no digit, so no flips."""


class Digits(ImageDataModule):
    """scikit-learn's digits, 1 x 8 x 8, 10 classes: 1,437 training images, validation included, and 360 test images."""

    def __init__(
        self,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        val_size: int = 180,
        seed: int | None = None,
        augment: Augment = AUGMENT,
        mix: Mix = Mix(),
    ) -> None:
        """Check and keep the settings.

        Args:
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
        super().__init__(
            name="digits",
            labels=[str(digit) for digit in range(10)],
            preprocess=PREPROCESS,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=val_size,
            seed=seed,
            augment=augment,
            mix=mix,
        )

    def load_split(self, part: Literal["train", "test"]) -> Split:
        """Return the 1,437 training or the 360 test images."""
        digits = _read()
        kept, taken = carve(digits.labels, TEST_SIZE, SPLIT_SEED, Draw.TEST_SPLIT)
        return digits.take(kept if part == "train" else taken)


def _read() -> Split:
    # scikit-learn takes a second to import, and only digits need it
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = torch.from_numpy(data.images).round().to(torch.int64)  # 17 levels, 0 to 16
    images = ((grey * 255 + 8) // 16).to(torch.uint8).unsqueeze(1)
    return Split.from_images(images, torch.from_numpy(data.target).to(torch.int64))
