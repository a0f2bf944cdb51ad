"""What a network answers to a person's own pictures, of whatever kind, and what was done to them first."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from reslight.models import ResNet

TOP = 5
_DEEP = ("I", "I;16", "I;16B", "I;16L", "F")
"""Pillow's modes of more than 8 bits a channel."""


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


def read_picture(path: Path, net: ResNet) -> Picture:
    """A file in the channels that a network takes.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no picture that Pillow reads, or is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with Image.open(path) as opened:
            frames = getattr(opened, "n_frames", 1)
            opened.load()
            image = opened.copy()
    except UnidentifiedImageError:
        raise ValueError(f"{path} is no picture that Pillow reads") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    done = [f"{image.width} x {image.height} {image.mode}"]
    if frames > 1:
        done.append(f"the first of {frames} frames")
    turned = ImageOps.exif_transpose(image)
    if turned.size != image.size or turned.tobytes() != image.tobytes():
        done.append("turned as its EXIF says")
    image = _flattened(turned, done)
    mode = "L" if net.preprocess.channels == 1 else "RGB"
    if image.mode != mode:
        done.append(f"to {'grey' if mode == 'L' else 'RGB'}")
        image = image.convert(mode)
    feed = net.preprocess
    side = feed.resize or feed.size
    if min(image.size) != side:
        done.append(f"its shorter side {'shrunk' if min(image.size) > side else 'enlarged'} to {side}")
    if image.width != image.height or side != feed.size:
        done.append(f"the middle {feed.size} x {feed.size} of it")
    return Picture(image, tuple(done))


def _flattened(image: Image.Image, done: list[str]) -> Image.Image:
    """Without transparency, and with 8 bits a channel."""
    if image.mode in _DEEP:
        extrema: Any = image.getextrema()  # a pair, as there is one channel
        low, high = extrema
        done.append(f"its values {low:g} to {high:g} as 0 to 255")
        scale = 255 / (high - low) if high > low else 0.0
        return image.convert("F").point(lambda value: value * scale - low * scale).convert("L")
    if image.has_transparency_data:
        done.append("over white, for it is transparent")
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
    return image
