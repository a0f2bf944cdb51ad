"""The logits of one or several networks for images that they were not trained on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from reslight.analysis.gradcam import grad_cam
from reslight.analysis.sheet import pixels
from reslight.data.loading.loaders import AnySplit, EvalLoader
from reslight.data.loading.split import Split
from reslight.messages import shortened, visible
from reslight.models import ResNet

BATCH = 250


def label_text(label: Tensor, names: Sequence[str]) -> str:
    """Return the name of an image's class, or those of its classes.

    Args:
        label: The number of the class, `()`, or 0 and 1 for each class, `(num_classes,)`.
        names: Name of each class.
    """
    if not label.ndim:
        return names[int(label)]
    return shortened([names[number] for number in label.nonzero().flatten().tolist()]) or "nothing"


def end_of_name(name: str) -> str:
    """Return the end of an image's path; of an image in a larger file, its place there, too: `row 3 of train/0.parquet`."""
    place = re.match(r"(row|item) \d+ of ", name)
    path = name[place.end() :] if place else name
    return (place[0] if place else "") + visible("/".join(path.split("/")[-2:]), 60)


@dataclass(frozen=True, eq=False)
class Part:
    """The images that one network was evaluated on.

    Attributes:
        net: The network.
        split: The images.
        logits: float32 `(N, num_classes)`.
        labels: int64 `(N,)`, or uint8 `(N, num_classes)` with several labels for each image.
    """

    net: ResNet
    split: AnySplit
    logits: Tensor
    labels: Tensor

    @classmethod
    def evaluate(cls, net: ResNet, split: AnySplit) -> "Part":
        """Compute the logits of a network for all images of a split."""
        network = net.to(memory_format=torch.channels_last)  # much faster on CPUs
        normalizer = net.preprocess.normalizer("cpu", net.fc.weight.dtype)
        logits, labels = [], []
        with torch.inference_mode():
            for batch in EvalLoader(split, batch_size=BATCH, rank=0, devices=1):
                logits.append(network(normalizer(batch.images, torch.channels_last)).float())
                labels.append(batch.labels)
        return cls(net, split.readable(), torch.cat(logits), torch.cat(labels))

    def name(self, number: int) -> str:
        """Return the name of an image: the end of its path, or its number."""
        if isinstance(self.split, Split):
            return f"image {number}"
        return end_of_name(self.split.images.name(int(self.split.numbers[number])))

    def images(self, numbers: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return images, uint8 `(N, C, H, W)`, and the heat maps of a class for each, see `grad_cam`."""
        batch = next(iter(self.split.batches([numbers], 0)))
        normalized = self.net.preprocess.normalize(batch.images, self.net.fc.weight.dtype)
        return pixels(normalized, self.net.preprocess), grad_cam(self.net, normalized, classes)[1]


@dataclass(frozen=True, eq=False)
class Outcome:
    """The images of all parts, numbered through.

    Attributes:
        parts: One for each network.
        names: Name of each class.
        title: What the networks are called.
        images: What the images are called: `test images`, for instance.
    """

    parts: Sequence[Part]
    names: Sequence[str]
    title: str
    images: str

    @cached_property
    def logits(self) -> Tensor:
        """Of all images, float64 `(N, num_classes)`."""
        return torch.cat([part.logits for part in self.parts]).double()

    @cached_property
    def labels(self) -> Tensor:
        """Of all images, int64 `(N,)`, or uint8 `(N, num_classes)` with several labels for each image."""
        return torch.cat([part.labels for part in self.parts])

    def label(self, number: int) -> str:
        """Return the name of an image's label, or those of its labels."""
        return label_text(self.labels[number], self.names)

    def place(self, number: int) -> tuple[Part, int]:
        """Return the part that an image is in, and its number there."""
        for part in self.parts:
            if number < len(part.labels):
                return part, number
            number -= len(part.labels)
        raise IndexError(number)
