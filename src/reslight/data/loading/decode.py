"""Decode image files: JPEG with torchvision's decoder, all other formats with Pillow.

torchvision's decoder takes about half of Pillow's time. Both release Python's lock, so threads decode in parallel. Of a large JPEG, Pillow
decodes a half, a quarter or an eighth of each side, which takes half of the time.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from reslight.data.loading.bands import decode_bands, is_tiff
from reslight.data.loading.converted import Converted
from reslight.messages import MissingPackageError, UsageError, visible

try:
    import simplejpeg
except ImportError:  # an optional package
    simplejpeg = None

LARGEST_FILE = 2**30
"""Bytes of an image file that are read at most; the largest image that is decoded has fewer."""
_FRAMES = (0xC0, 0xC1, 0xC2)
"""JPEG markers of the frames that every decoder reads: baseline, extended, progressive."""
_DIVISORS = (8, 4, 2)
"""By how much a decoder shrinks each side of a JPEG image at no cost."""
_NO_LENGTH = (0x01, 0xFF, *range(0xD0, 0xD9))
"""JPEG markers without a segment: padding, restarts, the start of the image."""

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # images that are too large raise an error
warnings.filterwarnings("ignore", message="The image decoding and encoding capabilities of TorchVision are deprecated")


def decode(data: bytearray, name: str, channels: int = 3, bits: int = 8) -> Tensor:
    """Decode an image of any format: rotated by its EXIF orientation, transparency over white, more than 8 bits scaled to 8.

    Args:
        data: The file.
        name: The image's name in an error.
        channels: 3 for RGB, 1 for gray; any other number is that of the image's channels, which are taken as they are.
        bits: 8, or 16 to keep values of 16 bits; values of 8 bits are then scaled to 16.

    Returns:
        uint8 `(channels, H, W)`; uint16 with 16 bits.

    Raises:
        MissingPackageError: tifffile is not installed, and the image needs it.
        UsageError: a file that is not an image, is damaged or is too large, or an image with other channels.
    """
    if not data:
        raise UsageError(f"{name} is empty. Replace or remove it.")
    is_usual = channels in (1, 3) and bits == 8
    if (not is_usual or is_tiff(data)) and (found := _decode_bands(data, name, channels, bits)) is not None:
        return found
    if size := jpeg_size(data):
        _check_size(*size, name)
        from torchvision.io import ImageReadMode, decode_jpeg  # takes as long to import as torch

        try:
            mode = ImageReadMode.RGB if channels == 3 else ImageReadMode.GRAY
            pixels: Tensor = decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), mode, apply_exif_orientation=True)
        except RuntimeError as error:
            raise _unreadable(name, error) from None
    else:
        pixels = _to_tensor(read_image(io.BytesIO(data), name, channels)[0])
    return pixels if bits == 8 else pixels.to(torch.int32).mul_(257).to(torch.uint16)


class Reduced(NamedTuple):
    """An image as a decoder made it at a part of its size."""

    image: Image.Image
    """Of mode RGB or L."""
    whole: tuple[int, int]
    """Height and width of the image in full."""
    divisor: int
    """Pixels of the whole image in each direction that one pixel stands for."""
    start: tuple[float, float]
    """Row and column, in reduced pixels, where the image begins."""


def decode_scaled(
    data: bytearray, name: str, channels: int, reduction: Callable[[int, int], float], most: Callable[[int, int], float]
) -> Reduced | None:
    """Decode a large JPEG image at a half, a quarter or an eighth of each side, so that no pixel of the result is enlarged from it.

    libjpeg computes the smaller image from the lowest frequencies of each block of 8 x 8 pixels. The package simplejpeg, if it is
    installed, returns the same pixels as Pillow in less time.

    Args:
        data: The file.
        name: The image's name in an error.
        channels: 3 for RGB, 1 for gray.
        reduction: Returns how many pixels of an image of some height and width, turned by its EXIF orientation, become one.
        most: The same for all crops of an image; cheap.

    Returns:
        The reduced image; None if all pixels are needed.

    Raises:
        UsageError: an image that is damaged or too large.
    """
    size = jpeg_size(data)
    if size is None or max(most(*size), most(*size[::-1])) < _DIVISORS[-1]:
        return None
    with _errors_of(name), Image.open(io.BytesIO(data)) as image:
        whole = Converted(image, channels)
        factor = reduction(whole.height, whole.width)
        if (divisor := next((one for one in _DIVISORS if one <= factor), None)) is None:
            return None
        reduced = Converted(_reduced(image, data, channels, divisor), channels).whole()
        # The last pixel stands for fewer ones; it is the first one of an image that is turned so.
        missing = (reduced.height - whole.height / divisor, reduced.width - whole.width / divisor)
        starts = (missing[0] * (whole.orientation in (3, 4, 7, 8)), missing[1] * (whole.orientation in (2, 3, 6, 7)))
        return Reduced(reduced, (whole.height, whole.width), divisor, starts)


def _reduced(image: Image.Image, data: bytearray, channels: int, divisor: int) -> Image.Image:
    """Return a JPEG image reduced by a decoder, not turned yet."""
    if simplejpeg is None:
        image.draft("L" if channels == 1 else "RGB", (image.width // divisor, image.height // divisor))
        image.load()
        return image
    height, width = -(-image.height // divisor), -(-image.width // divisor)
    pixels = simplejpeg.decode_jpeg(data, "GRAY" if channels == 1 else "RGB", min_height=height, min_width=width, min_factor=1)
    reduced = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    reduced.getexif().update(image.getexif())
    return reduced


def _to_tensor(image: Image.Image) -> Tensor:
    """Return an image of mode L or RGB as uint8 `(C, H, W)`."""
    pixels = torch.from_numpy(np.array(image))
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _decode_bands(data: bytearray, name: str, channels: int, bits: int) -> Tensor | None:
    with _errors_of(name):
        return decode_bands(data, name, channels, bits)


def read_image(
    file: Any, name: str, channels: int, make: Callable[[Converted], Image.Image] = Converted.whole
) -> tuple[Image.Image, list[str]]:
    """Decode an image with Pillow.

    Args:
        file: The image file, or its path.
        name: The image's name in an error.
        channels: 3 for RGB, 1 for gray.
        make: Makes the result of the decoded image.

    Returns:
        The image, of mode RGB or L, and the steps that were applied to it, in words.

    Raises:
        UsageError: a file that is not an image, is damaged or is too large.
    """
    with _errors_of(name), Image.open(file) as image:
        frames = getattr(image, "n_frames", 1)
        image.load()
        converted = Converted(image, channels)
        first = [f"the first of {frames} frames"] if frames > 1 else []
        return make(converted), [f"{image.width} x {image.height} {image.mode}", *first, *converted.steps]


@contextmanager
def _errors_of(name: str) -> Iterator[None]:
    """Raise what a decoder raises as one line.

    Raises:
        UsageError: a file that is not an image, is damaged or is too large.
    """
    try:
        yield
    except UnidentifiedImageError:
        raise UsageError(f"{name} is not an image that Pillow can read. Replace or remove it.") from None
    except Image.DecompressionBombError:
        raise _bomb(name) from None
    except MissingPackageError:
        raise
    except UsageError as error:
        raise (error if str(error).startswith(name) else _unreadable(name, error)) from error
    except Exception as error:  # a damaged image can raise any error, depending on its format
        raise _unreadable(name, error) from error


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


def _check_size(height: int, width: int, name: str) -> None:
    if Image.MAX_IMAGE_PIXELS and height * width > 2 * Image.MAX_IMAGE_PIXELS:  # Pillow's own limit
        raise _bomb(name)


def _bomb(name: str) -> UsageError:
    return UsageError(
        f"{name} has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels: it may be a decompression bomb. Shrink or remove it."
    )


def _unreadable(name: str, error: Exception) -> UsageError:
    # torchvision's message starts with the function and the line of its C++ code.
    lines = [re.sub(r"^[\w()]+, \S+:\d+, ", "", line.strip()) for line in str(error).splitlines() if line.strip()]
    reason = visible(lines[0], 160).removesuffix(".") if lines else type(error).__name__
    return UsageError(f"{name} cannot be read: {reason}. Replace or remove it.")
