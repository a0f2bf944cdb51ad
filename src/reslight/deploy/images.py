"""Decode anything that a user calls an image, with the channels of a network."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reslight.data.loading.converted import Converted
from reslight.data.loading.decode import LARGEST_FILE, decode, read_image
from reslight.messages import UsageError, counted, visible
from reslight.preprocess import Fit, Preprocess, fit
from reslight.regular_file import read_regular, regular_size

Picture = str | os.PathLike[str] | bytes | bytearray | Image.Image | np.ndarray | Tensor
"""A path; the bytes of an image file; a Pillow image; an array `(H, W)` or `(H, W, C)`; or a tensor `(C, H, W)` or `(H, W)`."""
_LONGEST = 1000
"""Characters of a path in a message."""


class Read(NamedTuple):
    """An image with the channels of a network."""

    image: Image.Image | Tensor
    """What `Preprocess` takes."""
    steps: tuple[str, ...]
    """How it was and will be changed for the network, in words."""


def decoded(picture: Picture, preprocess: Preprocess, name: str = "the image", *, whole: bool = False) -> Read:
    """Decode an image.

    Args:
        picture: The image.
        preprocess: Of the network. Its channels and bits determine what is kept.
        name: The image's name in an error, unless it has a path.
        whole: Keep all pixels. Otherwise a gray or RGB image is resized, but not cropped or padded yet; it takes less memory then.

    Raises:
        FileNotFoundError: a missing file.
        OSError: a file that cannot be read.
        TypeError: no image.
        UsageError: a folder, a file that Pillow does not read, a damaged image, or an array of another shape or dtype.
    """
    if isinstance(picture, str | os.PathLike):
        return _read(Path(picture), preprocess, whole=whole)
    if isinstance(picture, bytes | bytearray):
        data = bytearray(picture)
        return _from_file(io.BytesIO(data), lambda: data, name, preprocess, whole=whole)
    if isinstance(picture, np.ndarray | Tensor):
        picture = _from_array(picture, name, preprocess, whole=whole)
    if isinstance(picture, Tensor):
        height, width = picture.shape[-2:]
        return Read(picture, (f"{width} x {height}, {counted(len(picture), 'channel')}", *_steps(height, width, preprocess)))
    if not isinstance(picture, Image.Image):
        raise TypeError(f"{name} is of type {type(picture).__name__}: it must be a path, bytes, a Pillow image, an array or a tensor.")
    if preprocess.channels not in (1, 3) or preprocess.bits != 8:
        return Read(picture, (f"{picture.width} x {picture.height} {picture.mode}",))
    converted = Converted(picture, preprocess.channels)
    steps = (f"{picture.width} x {picture.height} {picture.mode}", *converted.steps)
    if whole:
        return Read(converted.whole(), steps)
    return Read(_resized(converted, preprocess), (*steps, *_steps(converted.height, converted.width, preprocess)))


def plain_pixels(picture: Picture, channels: int, shape: tuple[int, int] | None) -> Tensor | None:
    """Return an array or tensor of uint8 as pixels `(C, H, W)` if nothing is to be done to it, and None for any other image.

    `decoded` would return the same, but describes the image, which takes longer than to classify a small one.

    Args:
        picture: The image.
        channels: Number that it must have.
        shape: Height and width that it must have; any if None.
    """
    if isinstance(picture, np.ndarray) and picture.ndim == 3 and picture.dtype == np.uint8:
        if not picture.flags.c_contiguous or not picture.flags.writeable or min(picture.strides) < 0:
            return None
        picture = torch.from_numpy(picture).permute(2, 0, 1)
    if not isinstance(picture, Tensor) or picture.dtype != torch.uint8 or picture.ndim != 3 or picture.device.type != "cpu":
        return None
    return picture if len(picture) == channels and picture.numel() and shape in (None, picture.shape[1:]) else None


def all_pixels(image: Image.Image | Tensor) -> Tensor:
    """Return the pixels of an image that was decoded whole: uint8 or uint16 `(C, H, W)`."""
    if isinstance(image, Tensor):
        return image
    values = torch.from_numpy(np.array(image))
    return values.permute(2, 0, 1) if values.ndim == 3 else values[None]


def _read(path: Path, preprocess: Preprocess, *, whole: bool = False) -> Read:
    name = visible(path, _LONGEST)
    if path.is_dir():
        os.scandir(path).close()  # its error is the reason where `reslight predict` could not list a folder
        raise UsageError(f"{name} is a folder: an image file is wanted. Give the files in it.")
    if not path.exists():
        raise FileNotFoundError(f"{name} is missing. Give the path of an image file.")
    if not regular_size(path):
        raise UsageError(f"{name} is empty. Replace or remove it.")
    return _from_file(path, lambda: read_regular(path, LARGEST_FILE), name, preprocess, whole=whole)


def _from_file(file: Any, data: Callable[[], bytearray], name: str, preprocess: Preprocess, *, whole: bool = False) -> Read:
    """Decode an image file.

    Args:
        file: Its path, or the opened file.
        data: Returns its bytes.
        name: The image's name in an error.
        preprocess: Of the network.
        whole: See `decoded`.
    """
    more: list[str] = []

    def resized(image: Converted) -> Image.Image:
        more.extend(_steps(image.height, image.width, preprocess))
        return image.whole() if whole else _resized(image, preprocess)

    if preprocess.channels in (1, 3) and preprocess.bits == 8:
        image, steps = read_image(file, name, preprocess.channels, resized)
        return Read(image, (*steps, *more))
    pixels = decode(data(), name, preprocess.channels, preprocess.bits)
    height, width = pixels.shape[-2:]
    read_as = f"{width} x {height}, {counted(preprocess.channels, 'channel')} of {preprocess.bits} bits"
    return Read(pixels, (read_as, *_steps(height, width, preprocess)))


def _from_array(array: np.ndarray | Tensor, name: str, preprocess: Preprocess, *, whole: bool) -> Image.Image | Tensor:
    """Return an array or tensor as what `Preprocess` takes.

    Gray and RGB of 8 bits become a Pillow image where they are converted or resized, so that files give the same result.

    Raises:
        UsageError: another shape or dtype.
    """
    tensor = array if isinstance(array, Tensor) else torch.from_numpy(_writable(array)) if _is_numeric(array) else None
    dtypes = (torch.uint8,) if preprocess.bits == 8 else (torch.uint8, torch.uint16)
    kind, form = ("a tensor", "(C, H, W)") if isinstance(array, Tensor) else ("an array", "(H, W, C)")
    channels = {preprocess.channels} | ({1, 3, 4} if preprocess.channels in (1, 3) and preprocess.bits == 8 else set())
    if tensor is not None and tensor.ndim == 2:
        tensor = tensor[None]
    elif tensor is not None and kind == "an array" and tensor.ndim == 3:
        tensor = tensor.permute(2, 0, 1)
    if tensor is None or tensor.ndim != 3 or tensor.dtype not in dtypes or len(tensor) not in channels or not tensor.numel():
        shown = f"{array.dtype} {tuple(array.shape)}"
        raise UsageError(
            f"{name} is {kind} {shown}: it must be {' or '.join(str(one).removeprefix('torch.') for one in dtypes)} {form} or (H, W), "
            f"with {preprocess.channels} channels, and values from 0 to {255 if preprocess.bits == 8 else 65535}. Convert it."
        )
    if preprocess.channels not in (1, 3) or preprocess.bits != 8:
        return tensor
    if len(tensor) == preprocess.channels and (whole or is_ready(tensor.shape[-2:], preprocess)):
        return tensor.cpu()
    values = tensor.cpu().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)


def is_ready(shape: tuple[int, ...], preprocess: Preprocess) -> bool:
    """Return whether `preprocess` neither resizes nor crops or pads an image of this height and width."""
    height, width = shape
    return preprocess.shape == (height, width) and _fit(height, width, preprocess) == ((0, 0, height, width), (height, width))


def _writable(array: np.ndarray) -> np.ndarray:
    """Return the array, or a copy where it is read-only or not contiguous: torch warns about the one and refuses some of the other.

    To NumPy, an axis of one pixel or channel is contiguous in both directions; torch refuses a negative stride there, too.
    """
    return array.copy() if min(array.strides, default=0) < 0 else np.require(array, requirements=("C", "W"))


def _is_numeric(array: np.ndarray) -> bool:
    return array.dtype.kind in "buif" and array.dtype.isnative


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
