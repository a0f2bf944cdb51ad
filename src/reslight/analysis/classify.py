"""What a network answers to a person's own pictures, of whatever kind, and what was done to them first."""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from reslight.data.loading.decode import read_picture
from reslight.messages import UsageError
from reslight.models import ResNet

TOP = 5


@dataclass(frozen=True)
class Picture:
    """A picture in 8-bit grey or RGB.

    Attributes:
        image: The picture.
        done: What was done to it, in words.
    """

    image: Image.Image
    done: tuple[str, ...]


@torch.inference_mode()
def classify(net: ResNet, picture: Picture) -> list[tuple[str, float]]:
    """The most probable classes, at most five, each with its probability; a class without a name has its number.

    Args:
        net: A network with its `preprocess`, in eval mode.
        picture: What to classify.
    """
    pixels = net.preprocess(picture.image)[None].to(net.fc.weight.dtype)
    probabilities = net(pixels)[0].double().softmax(dim=0)
    best = probabilities.sort(descending=True, stable=True)
    names = net.labels or range(net.config.num_classes)
    pairs = zip(best.indices[:TOP].tolist(), best.values[:TOP].tolist(), strict=True)
    return [(str(names[number]), probability) for number, probability in pairs]


def read(path: Path, net: ResNet) -> Picture:
    """A file in the channels that a network takes.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no picture that Pillow reads, or is damaged.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the pictures in it")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    feed = net.preprocess
    image, done = read_picture(path, str(path), feed.channels)
    side = feed.resize or feed.size
    if min(image.size) != side:
        done.append(f"its shorter side {'shrunk' if min(image.size) > side else 'enlarged'} to {side}")
    if image.width != image.height or side != feed.size:
        done.append(f"the middle {feed.size} x {feed.size} of it")
    return Picture(image, tuple(done))
