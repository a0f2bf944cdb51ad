"""Resize an image for a network, and crop its center or pad it: sizes as numbers, and the steps on tensors."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from reslight.messages import MissingPackageError

Interpolation = Literal["bilinear", "bicubic"]
Fitting = Literal["center", "squash", "letterbox"]
"""How an image of any shape becomes one of the network's shape."""
Size = int | tuple[int, int]
"""Height and width in pixels: one number for a square, or both."""
STRIP = 32
"""Largest ratio of an image's sides; of longer images only the middle is resized."""
MAX_PIXELS = 2**26
"""Pixels of a resized image that are wanted at most, before its center is cropped."""


class Fit(NamedTuple):
    """How an image comes near the network's shape; its center is then cropped, or padded."""

    part: tuple[int, int, int, int]
    """The part of the image that is resized: top, left, height and width."""
    size: tuple[int, int]
    """Height and width that the part is resized to."""


def shape_of(size: Size) -> tuple[int, int]:
    """Return height and width."""
    return size if isinstance(size, tuple) else (size, size)


def fit(height: int, width: int, shape: tuple[int, int], resize: int | None = None, how: Fitting = "center") -> Fit:
    """Return how an image comes near a network's shape. Sides are rounded as in torchvision and timm, on whose pixels accuracies depend.

    Args:
        height: Of the image.
        width: Of the image.
        shape: Height and width of the network's input.
        resize: The short side of the shape that the image is resized for, before the center crop; that of `shape` if None.
        how: See `Preprocess.crop`.
    """
    short = resize or min(shape)
    tall, wide = (side * short // min(shape) for side in shape)
    whole = (0, 0, height, width)
    if how == "squash":
        return Fit(whole, (tall, wide))
    if how == "letterbox":
        ratio = max(height / tall, width / wide)
        return Fit(whole, (max(1, round(height / ratio)), max(1, round(width / ratio))))
    part = middle(height, width, short, shape[1] / shape[0])
    _, _, height, width = part
    if tall == wide:
        return Fit(part, (short, int(short * width / height)) if height <= width else (int(short * height / width), short))
    ratio = min(height / tall, width / wide)
    return Fit(part, (round(height / ratio), round(width / ratio)))


def middle(height: int, width: int, short_side: int = 0, aspect: float = 1.0) -> tuple[int, int, int, int]:
    """Return the part of an image that is resized, as top, left, height and width: the whole image unless it is very long.

    An image of 1 x 6,000 pixels would be resized to 224 x 1,344,000, and the center crop would keep 224 x 224 of that.

    Args:
        height: Of the image.
        width: Of the image.
        short_side: What the short side is resized to; where it is above 1,448 pixels, 32 times as long would be gigabytes.
        aspect: Width divided by height of the center crop.
    """
    ratio = min(STRIP, max(2, MAX_PIXELS // max(1, short_side) ** 2))
    tall, wide = min(height, max(1, int(ratio * width / aspect))), min(width, max(1, int(ratio * height * aspect)))
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def resize_tensor(image: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """Resize uint8 or uint16 `(..., C, H, W)`, antialiased."""
    if tuple(image.shape[-2:]) == size:
        return image
    tvf, modes_of_resizing = _torchvision()
    is_deep = image.dtype == torch.uint16
    source = image.float() if is_deep else image
    resized: Tensor = tvf.resize_image(source, list(size), modes_of_resizing(interpolation), antialias=True)
    return resized.round_().clamp_(0, 65535).to(torch.uint16) if is_deep else resized


def center_to(image: Tensor, shape: tuple[int, int], fill: tuple[int, ...]) -> Tensor:
    """Crop the center of an image `(..., C, H, W)`, or pad it to a shape.

    Args:
        image: uint8 or uint16.
        shape: Height and width of the result.
        fill: Value of added pixels, 0 to 255, for each channel.
    """
    height, width = image.shape[-2:]
    if height < shape[0] or width < shape[1]:
        tall, wide = max(height, shape[0]), max(width, shape[1])
        top, left = (tall - height) // 2, (wide - width) // 2
        scale = 257 if image.dtype == torch.uint16 else 1
        color = torch.tensor([value * scale for value in fill], dtype=torch.int32, device=image.device).to(image.dtype)
        padded = color.expand(*image.shape[:-3], tall, wide, len(fill)).clone().movedim(-1, -3)  # (H, W, C) in memory
        padded[..., top : top + height, left : left + width] = image
        image, height, width = padded, tall, wide
    # Rounded as in torchvision, whose published accuracies depend on it.
    top, left = round((height - shape[0]) / 2), round((width - shape[1]) / 2)
    return image[..., top : top + shape[0], left : left + shape[1]]


def _torchvision() -> tuple[Any, Any]:
    """Return torchvision's functions on images, and its kinds of interpolation.

    Raises:
        MissingPackageError: torchvision is not installed.
    """
    try:
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2 import functional as tvf
    except ImportError as error:
        raise MissingPackageError("torchvision is not installed: it resizes images. Run pip install torchvision.") from error
    return tvf, InterpolationMode
