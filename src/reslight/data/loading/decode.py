"""Decode image files to 8-bit pixels: JPEG with torchvision's decoder, all other formats with Pillow.

torchvision's decoder takes about half of Pillow's time. Both release Python's lock, so threads decode in parallel.
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

from reslight.messages import UsageError, visible

_DEEP = ("I", "I;16", "I;16B", "I;16L", "F")
"""Pillow's modes of more than 8 bits a channel."""
_SCALES = {"F": ((0, 1), (0, 255))}
"""Values of black and white in each mode, the first range that holds all values of the image; else its least and greatest value."""
_ORIENTATION = 0x0112
_FRAMES = (0xC0, 0xC1, 0xC2)
"""JPEG markers of the frames that every decoder reads: baseline, extended, progressive."""
_NO_LENGTH = (0x01, 0xFF, *range(0xD0, 0xD9))
"""JPEG markers without a segment: padding, restarts, the start of the image."""

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # images that are too large raise an error
warnings.filterwarnings("ignore", message="The image decoding and encoding capabilities of TorchVision are deprecated")


def decode(data: bytearray, name: str, channels: int = 3) -> Tensor:
    """Decode an image of any format: rotated by its EXIF orientation, transparency over white, more than 8 bits scaled to 8.

    Args:
        data: The file.
        name: The image's name in an error.
        channels: 3 for RGB, 1 for gray.

    Returns:
        uint8 `(channels, H, W)`.

    Raises:
        UsageError: a file that is not an image, is damaged or is too large.
    """
    if not data:
        raise UsageError(f"{name} is empty. Replace or remove it.")
    if size := jpeg_size(data):
        _check_size(*size, name)
        try:
            mode = ImageReadMode.RGB if channels == 3 else ImageReadMode.GRAY
            pixels: Tensor = decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), mode, apply_exif_orientation=True)
        except RuntimeError as error:
            raise _unreadable(name, error) from None
        return pixels
    pixels = torch.from_numpy(np.array(read_image(io.BytesIO(data), name, channels)[0]))
    return pixels.unsqueeze(0) if channels == 1 else pixels.permute(2, 0, 1)


def read_image(file: Any, name: str, channels: int) -> tuple[Image.Image, list[str]]:
    """Decode an image with Pillow.

    Args:
        file: The image file, or its path.
        name: The image's name in an error.
        channels: 3 for RGB, 1 for gray.

    Returns:
        The image, of mode RGB or L, and the steps that were applied to it, in words.

    Raises:
        UsageError: a file that is not an image, is damaged or is too large.
    """
    try:
        with Image.open(file) as opened:
            frames = getattr(opened, "n_frames", 1)
            opened.load()
            image: Image.Image = opened  # no copy, since an image may have hundreds of megabytes; it outlives the file
            done = [f"{image.width} x {image.height} {image.mode}"]
            if frames > 1:
                done.append(f"the first of {frames} frames")
            if image.getexif().get(_ORIENTATION) in range(2, 9):
                image = ImageOps.exif_transpose(image)
                done.append("rotated by its EXIF orientation")
            image = _flattened(image, done)
    except UnidentifiedImageError:
        raise UsageError(f"{name} is not an image that Pillow can read. Replace or remove it.") from None
    except Image.DecompressionBombError:
        raise _bomb(name) from None
    except Exception as error:  # a damaged image can raise any error, depending on its format
        raise _unreadable(name, error) from error
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        done.append(f"to {'gray' if mode == 'L' else 'RGB'}")
        image = image.convert(mode)
    return image, done


def jpeg_size(data: bytearray) -> tuple[int, int] | None:
    """Return the stored height and width of a JPEG image, or None if torchvision may decode the file differently from Pillow.

    Such files are not JPEG, are damaged before their pixels, or have 12 bits per channel or four channels (CMYK).
    """
    # Pillow finds the same when it opens a file, but takes 50 us instead of 3, under the lock that all threads share.
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
    """Return the image without transparency, and with 8 bits per channel."""
    if image.mode in _DEEP:
        values = np.asarray(image, dtype=np.float64)  # Pillow does not convert all of these modes
        low, high = float(values.min()), float(values.max())
        if not math.isfinite(high - low):
            raise UsageError("it has values that are not numbers")
        limits = [limits for limits in _SCALES.get(image.mode, ((0, 65535),)) if limits[0] <= low and high <= limits[1]]
        first, last = limits[0] if limits else (low, high)
        done.append(f"values {first:g} to {last:g} scaled to 0 to 255")
        return Image.fromarray(np.round((values - first) * (255 / (last - first or 1))).astype(np.uint8))
    if image.has_transparency_data:
        done.append("transparent parts over white")
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
    return image


def _check_size(height: int, width: int, name: str) -> None:
    if Image.MAX_IMAGE_PIXELS and height * width > 2 * Image.MAX_IMAGE_PIXELS:  # Pillow's own limit
        raise _bomb(name)


def _bomb(name: str) -> UsageError:
    return UsageError(
        f"{name} has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels: it may be a decompression bomb. Shrink or remove it."
    )


def _unreadable(name: str, error: Exception) -> UsageError:
    # torchvision's message starts with the function and the line of its C++ code.
    lines = [re.sub(r"^\w+, \S+:\d+, ", "", line.strip()) for line in str(error).splitlines() if line.strip()]
    reason = visible(lines[0], 160).removesuffix(".") if lines else type(error).__name__
    return UsageError(f"{name} cannot be read: {reason}. Replace or remove it.")
