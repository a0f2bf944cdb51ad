"""`Digits`: 1,797 handwritten digits of 8x8 pixels that come with scikit-learn. No download, trained in seconds.

Source: https://archive.ics.uci.edu/dataset/80 (E. Alpaydin, C. Kaynak 1998), the part that scikit-learn ships, CC BY
4.0.
"""

from typing import Any, Literal

import torch

from reslight.data.augment.augment import Augment
from reslight.data.datamodule import SPLIT_SEED, ImageDataModule
from reslight.data.loading.split import Split, stratified_split
from reslight.data.rng import Draw
from reslight.preprocess import Preprocess

TEST_SIZE = 360
"""One image in five; the dataset has no official test split. One image is 0.28 points of accuracy."""

PREPROCESS = Preprocess(size=8, mean=(0.3051,), std=(0.3755,))
"""Statistics of the 1,437 training images, validation included."""

AUGMENT = Augment(pad=1)
"""No flips: a mirrored digit is not a digit."""


class Digits(ImageDataModule):
    """scikit-learn's digits, 1 x 8 x 8, 10 classes: 1,437 training images, validation included, and 360 test images."""

    def __init__(self, *, val_size: int = 180, augment: Augment = AUGMENT, **settings: Any) -> None:
        """Check and keep the settings, see `ImageDataModule`."""
        super().__init__(
            name="digits",
            labels=[str(digit) for digit in range(10)],
            preprocess=PREPROCESS,
            val_size=val_size,
            augment=augment,
            **settings,
        )

    def load_split(self, split: Literal["train", "test"]) -> Split:
        """Return the 1,437 training or the 360 test images."""
        digits = _read()
        kept, taken = stratified_split(digits.labels, TEST_SIZE, SPLIT_SEED, Draw.TEST_SPLIT)
        return digits.subset(kept if split == "train" else taken)


def _read() -> Split:
    # scikit-learn takes a second to import, and only this dataset needs it.
    from sklearn.datasets import load_digits

    data = load_digits()
    gray = torch.from_numpy(data.images).round().to(torch.int64)  # 17 levels, 0 to 16
    images = ((gray * 255 + 8) // 16).to(torch.uint8).unsqueeze(1)
    return Split.from_images(images, torch.from_numpy(data.target).to(torch.int64))
