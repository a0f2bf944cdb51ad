"""From the bytes of an image file to 8-bit pixels: JPEG by torchvision's decoder, everything else by Pillow.

torchvision's decoder takes about half of Pillow's time. Both let go of Python's lock, so threads decode side by side.
"""

import io
import math
import re
import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from reslight.messages import UsageError

_DEEP = ("I", "I;16", "I;16B", "I;16L", "F")
"""Pillow's modes of more than 8 bits a channel."""
_SCALES = {"F": ((0, 1), (0, 255))}
"""What stands for black and white, for each mode; where the values go beyond, their own least and greatest."""
_ORIENTATION = 0x0112
_FRAMES = (0xC0, 0xC1, 0xC2)
"""JPEG's markers of a frame that every decoder reads: baseline, extended, progressive."""
_NO_LENGTH = (0x01, 0xFF, *range(0xD0, 0xD9))
"""JPEG's markers without a segment: padding, restarts, the start of the image."""


warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # what is too large raises an error
warnings.filterwarnings("ignore", message="The image decoding and encoding capabilities of TorchVision are deprecated")


def decode(data: bytearray, name: str, channels: int = 3) -> Tensor:
    """Decode an image of any kind: turned as its EXIF says, transparency over white, more than 8 bits scaled to 8.

    Args:
        data: The file.
        name: What it is called in an error.
        channels: 3 for RGB, 1 for grey.

    Returns:
        uint8 `(channels, H, W)`.

    Raises:
        UsageError: It is no image, is damaged, or is too large.
    """
    if not data:
        raise UsageError(f"{name} is empty")
    if size := jpeg_size(data):
        _check_size(*size, name)
        try:
            mode = ImageReadMode.RGB if channels == 3 else ImageReadMode.GRAY
            pixels: Tensor = decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), mode, apply_exif_orientation=True)
        except RuntimeError as error:
            raise _unreadable(name, error) from None
        return pixels
    pixels = torch.from_numpy(np.array(read_picture(io.BytesIO(data), name, channels)[0]))
    return pixels.unsqueeze(0) if channels == 1 else pixels.permute(2, 0, 1)


def read_picture(file: Any, name: str, channels: int) -> tuple[Image.Image, list[str]]:
    """Decode with Pillow.

    Args:
        file: The image file, or its path.
        name: What it is called in an error.
        channels: 3 for RGB, 1 for grey.

    Returns:
        The image, of mode RGB or L, and what was done to it, in words.

    Raises:
        UsageError: It is no image, is damaged, or is too large.
    """
    try:
        with Image.open(file) as opened:
            frames = getattr(opened, "n_frames", 1)
            opened.load()
            image = opened.copy()
        done = [f"{image.width} x {image.height} {image.mode}"]
        if frames > 1:
            done.append(f"the first of {frames} frames")
        if image.getexif().get(_ORIENTATION) in range(2, 9):
            image = ImageOps.exif_transpose(image)
            done.append("turned as its EXIF says")
        image = _flattened(image, done)
    except UnidentifiedImageError:
        raise UsageError(f"{name} is no picture that Pillow reads") from None
    except Image.DecompressionBombError:
        raise _bomb(name) from None
    except Exception as error:  # damaged images raise whatever their format's reader stumbles over
        raise _unreadable(name, error) from error
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        done.append(f"to {'grey' if mode == 'L' else 'RGB'}")
        image = image.convert(mode)
    return image, done


def jpeg_size(data: bytearray) -> tuple[int, int] | None:
    """Height and width of a JPEG image as it is stored; None for what torchvision may decode otherwise than Pillow.

    That is what is no JPEG, is damaged before its pixels begin, has 12 bits a channel, or four channels (CMYK).
    """
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAMES:
            bits, height, width, components = data[at + 4], *(int.from_bytes(data[at + k : at + k + 2]) for k in (5, 7)), data[at + 9]
            return (height, width) if bits == 8 and components in (1, 3) and height and width else None
        at += 1 if marker == 0xFF else 2 if marker in _NO_LENGTH else 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def _flattened(image: Image.Image, done: list[str]) -> Image.Image:
    """Without transparency, and with 8 bits a channel."""
    if image.mode in _DEEP:
        values = np.asarray(image, dtype=np.float64)  # Pillow converts not all of these modes
        low, high = float(values.min()), float(values.max())
        if not math.isfinite(high - low):
            raise UsageError("it holds values that are no numbers")
        limits = [limits for limits in _SCALES.get(image.mode, ((0, 65535),)) if limits[0] <= low and high <= limits[1]]
        first, last = limits[0] if limits else (low, high)
        done.append(f"its values {first:g} to {last:g} as 0 to 255")
        return Image.fromarray(np.round((values - first) * (255 / (last - first or 1))).astype(np.uint8))
    if image.has_transparency_data:
        done.append("over white, for it is transparent")
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
    return image


def _check_size(height: int, width: int, name: str) -> None:
    if Image.MAX_IMAGE_PIXELS and height * width > 2 * Image.MAX_IMAGE_PIXELS:  # where Pillow stops, too
        raise _bomb(name)


def _bomb(name: str) -> UsageError:
    return UsageError(
        f"{name} has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels and is taken for a decompression bomb; shrink it, or remove it"
    )


def _unreadable(name: str, error: Exception) -> UsageError:
    # torchvision begins with the function and the line of its C++
    lines = [re.sub(r"^\w+, \S+:\d+, ", "", line.strip()) for line in str(error).splitlines() if line.strip()]
    return UsageError(f"{name} cannot be read: {lines[0][:160] if lines else type(error).__name__}")
