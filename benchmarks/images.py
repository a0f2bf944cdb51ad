"""Random images of any size, on reslight's road and on torchvision's; by default they have CIFAR-10's shape.

Nothing that is measured depends on what the pixels show.
"""

from dataclasses import replace
from functools import cache
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import v2

from reslight.data import ImageDataModule, Split
from reslight.data.cifar.cifar import AUGMENT
from reslight.preprocess import Preprocess

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CLASSES = 10


@cache
def random_split(count: int, size: int) -> Split:
    """A split that is made once, for the time it takes is not what is measured."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    return Split.from_images(images, torch.arange(count) % CLASSES)


class RandomImages(ImageDataModule):
    """reslight's data road over random images, with the augmentation of the CIFAR recipes."""

    def __init__(self, count: int = 50_000, size: int = 32, batch_size: int = 128, pad: int = 4) -> None:
        super().__init__(
            name="random",
            labels=[f"class {number}" for number in range(CLASSES)],
            preprocess=Preprocess(size=size, mean=MEAN, std=STD),
            batch_size=batch_size,
            eval_batch_size=None,
            val_size=0,
            seed=None,
            augment=replace(AUGMENT, pad=pad),
        )
        self.count = count

    def load_split(self, part: Literal["train", "test"]) -> Split:
        return random_split(self.count, self.preprocess.size)


class PilImages(Dataset[tuple[Tensor, int]]):
    """What torchvision.datasets.CIFAR10 does with the same pixels: a Pillow image made of each, for the transforms."""

    def __init__(self, split: Split, pad: int = 4) -> None:
        self.data: np.ndarray = split.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.targets: list[int] = split.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(split.images.shape[-1], padding=pad),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


class TensorImages(Dataset[tuple[Tensor, int]]):
    """The same through torchvision's transforms v2, which take the uint8 tensor as it is."""

    def __init__(self, split: Split, pad: int = 4) -> None:
        self.images, self.targets = split.images, split.labels.tolist()
        self.transform = v2.Compose(
            [
                v2.RandomCrop(split.images.shape[-1], padding=pad),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.targets[index]


def loader(dataset: Dataset[tuple[Tensor, int]], batch_size: int, workers: int) -> DataLoader[tuple[Tensor, int]]:
    """As the torchvision references load training images."""
    return DataLoader(dataset, batch_size, shuffle=True, num_workers=workers, drop_last=True)
