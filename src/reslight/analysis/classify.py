"""Classify the user's own image files, and say how each was preprocessed."""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from reslight.data.loading.converted import Converted
from reslight.data.loading.decode import read_image
from reslight.messages import UsageError, visible
from reslight.models import ResNet
from reslight.preprocess import Preprocess, middle
from reslight.regular_file import regular_size

TOP = 5
"""Classes that are returned for an image."""


@dataclass(frozen=True)
class DecodedImage:
    """An image with 8 bits per channel, gray or RGB.

    Attributes:
        image: The image, whose short side is resized, but whose center is not cropped yet.
        steps: How it was and will be changed for the network, in words.
    """

    image: Image.Image
    steps: tuple[str, ...]


@torch.inference_mode()
def classify(net: ResNet, image: DecodedImage) -> list[tuple[str, float]]:
    """Return the most probable classes, at most five, with their probabilities; a class without a name is called by its number.

    Args:
        net: A network with its `preprocess`, in eval mode.
        image: The image.

    Raises:
        UsageError: probabilities that are not numbers.
    """
    pixels = net.preprocess(image.image)[None].to(net.fc.weight.dtype)
    probabilities = net(pixels)[0].double().softmax(dim=0)
    if not bool(probabilities.isfinite().all()):
        raise UsageError(
            "the network's probabilities are not finite numbers: its weights are too large. Get the weights again, or retrain."
        )
    best = probabilities.sort(descending=True, stable=True)
    names = net.labels or range(net.config.num_classes)
    pairs = zip(best.indices[:TOP].tolist(), best.values[:TOP].tolist(), strict=True)
    return [(str(names[number]), probability) for number, probability in pairs]


def read(path: Path, net: ResNet) -> DecodedImage:
    """Read an image file with the channels of a network.

    Args:
        path: The file.
        net: A network with its `preprocess`.

    Raises:
        FileNotFoundError: a missing file.
        UsageError: a folder, a file that Pillow does not read, or a damaged image.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder: classify takes image files. Give the files in it.")
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing. Give the path of an image file.")
    regular_size(path)
    preprocess = net.preprocess
    more = []

    def resized(image: Converted) -> Image.Image:
        side = preprocess.resize or preprocess.size
        if min(image.width, image.height) != side:
            more.append(f"short side resized to {side}")
        if image.width != image.height or side != preprocess.size:
            more.append(f"center {preprocess.size} x {preprocess.size}")
        return _resized(image, preprocess)

    image, steps = read_image(path, visible(path, 1000), preprocess.channels, resized)
    return DecodedImage(image, (*steps, *more))


def _resized(image: Converted, preprocess: Preprocess) -> Image.Image:
    """Return what `preprocess` resizes of an image, resized as it does, to the bit, but part by part.

    Pillow resizes the rows of an image first, and then the columns of what that gave.
    """
    side = preprocess.resize or preprocess.size
    top, left, height, width = middle(image.height, image.width, side)
    if min(height, width) == side:
        return image.part(left, top, left + width, top + height)
    length = int(side * max(height, width) / min(height, width))  # as torchvision rounds it
    wide, tall = (side, length) if width <= height else (length, side)
    how = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[preprocess.interpolation]
    narrow = Image.new("L" if preprocess.channels == 1 else "RGB", (wide, height))
    for first, last in image.strips(width, height):
        part = image.part(left, top + first, left + width, top + last)
        narrow.paste(part.resize((wide, last - first), how), (0, first))
    return narrow.resize((wide, tall), how)
