"""Classify the user's own image files, and report how each was preprocessed."""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from reslight.data.loading.converted import Converted
from reslight.data.loading.decode import LARGEST_FILE, decode, read_image
from reslight.messages import UsageError, counted, visible
from reslight.models import ResNet
from reslight.preprocess import Fit, Preprocess, fit
from reslight.regular_file import read_regular, regular_size

TOP = 5
"""Classes that are returned for an image."""


@dataclass(frozen=True)
class DecodedImage:
    """An image with the channels of a network.

    Attributes:
        image: Gray or RGB: the image, which is resized, but not cropped or padded yet. With other channels or 16 bits: all of its pixels.
        steps: How it was and will be changed for the network, in words.
    """

    image: Image.Image | Tensor
    steps: tuple[str, ...]


@torch.inference_mode()
def classify(net: ResNet, image: DecodedImage, threshold: float = 0.5) -> list[tuple[str, float]]:
    """Return the most probable classes with their probabilities, the highest first; a class without a name is called by its number.

    Args:
        net: A network with its `preprocess`, in eval mode. If it has one label for each image, at most five classes are returned.
        image: The image.
        threshold: With several labels, the classes whose probability is above it are returned.

    Raises:
        UsageError: probabilities that are not numbers.
    """
    pixels = net.preprocess(image.image)[None].to(net.fc.weight.dtype)
    logits = net(pixels)[0].double() / net.temperature
    probabilities = logits.sigmoid() if net.multi_label else logits.softmax(dim=0)
    if not bool(probabilities.isfinite().all()):
        raise UsageError(
            "the network's probabilities are not finite numbers: its weights are too large. Get the weights again, or retrain."
        )
    best = probabilities.sort(descending=True, stable=True)
    names = net.labels or range(net.config.num_classes)
    count = int((best.values > threshold).sum()) if net.multi_label else TOP
    pairs = zip(best.indices[:count].tolist(), best.values[:count].tolist(), strict=True)
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
        more.extend(_steps(image.height, image.width, preprocess))
        return _resized(image, preprocess)

    name = visible(path, 1000)
    if preprocess.channels in (1, 3) and preprocess.bits == 8:
        image, steps = read_image(path, name, preprocess.channels, resized)
        return DecodedImage(image, (*steps, *more))
    pixels = decode(read_regular(path, LARGEST_FILE), name, preprocess.channels, preprocess.bits)
    height, width = pixels.shape[-2:]
    read_as = f"{width} x {height}, {counted(preprocess.channels, 'channel')} of {preprocess.bits} bits"
    return DecodedImage(pixels, (read_as, *_steps(height, width, preprocess)))


def _steps(height: int, width: int, preprocess: Preprocess) -> list[str]:
    """Return how an image is resized and cropped or padded, in words."""
    (tall, wide), shape, crop = (placed := _fit(height, width, preprocess)).size, preprocess.shape, preprocess.crop
    steps = []
    if (tall, wide) != placed.part[2:]:
        is_plain = crop == "center" and shape[0] == shape[1]
        steps.append(f"short side resized to {min(tall, wide)}" if is_plain else f"resized to {wide} x {tall}")
    if (tall, wide) != shape:
        steps.append(f"{'padded to' if crop == 'letterbox' else 'center'} {shape[1]} x {shape[0]}")
    return steps


def _fit(height: int, width: int, preprocess: Preprocess) -> Fit:
    return fit(height, width, preprocess.shape, preprocess.resize, preprocess.crop)


def _resized(image: Converted, preprocess: Preprocess) -> Image.Image:
    """Return what `preprocess` resizes of an image, resized as it does, to the bit, but part by part.

    Pillow resizes the rows of an image first, and then the columns of what that gave.
    """
    (top, left, height, width), (tall, wide) = _fit(image.height, image.width, preprocess)
    if (height, width) == (tall, wide):
        return image.part(left, top, left + width, top + height)
    how = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[preprocess.interpolation]
    narrow = Image.new("L" if preprocess.channels == 1 else "RGB", (wide, height))
    for first, last in image.strips(width, height):
        part = image.part(left, top + first, left + width, top + last)
        narrow.paste(part.resize((wide, last - first), how), (0, first))
    return narrow.resize((wide, tall), how)
