"""`Source`: the files of a split, in any of the formats, and the function that reads them."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from reslight.data.cifar.metadata import SIZE
from reslight.messages import UsageError, visible


@dataclass(frozen=True)
class Source:
    """The files of a split."""

    title: str
    """For messages, e.g. `the archive data/cifar-10-python.tar.gz`."""
    files: Sequence[Path]
    """All files that are read; the cache is stale when one of them changes."""
    read: Callable[[], tuple[Tensor, Tensor]]
    """Returns the images, uint8 `(N, C, H, W)`, and the labels, int64 `(N,)`, in the order of the files."""


def decode(data: bytes | bytearray, name: str) -> np.ndarray:
    """Decode an image file to RGB, uint8 `(32, 32, 3)`.

    Args:
        data: The file: PNG, WebP or any other format that Pillow reads.
        name: The image's name in an error.

    Raises:
        UsageError: a file that is not an image, or an image of another size.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size  # from the header, so that nothing large is decoded
            if width == height == SIZE:
                return np.asarray(image.convert("RGB"))
    except Exception as error:  # a damaged image can raise any error, depending on its format
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else visible(error)
        raise UsageError(f"{name} cannot be read as an image ({reason}). Replace it by a sound copy.") from error
    raise UsageError(f"{name} has {width} x {height} pixels: it must have {SIZE} x {SIZE}. Replace it by the original.")


def to_tensors(images: Sequence[np.ndarray], labels: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Convert `(H, W, C)` images and their labels to uint8 `(N, C, H, W)` and int64 `(N,)`."""
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return stacked, torch.tensor(labels, dtype=torch.int64)


def class_numbers(labels: Sequence[str]) -> dict[str, int]:
    """Return the number of each class, by its `class_key`."""
    return {class_key(label): number for number, label in enumerate(labels)}


def class_key(name: str) -> str:
    """Return a class's name in one spelling: `Lawn mower` is `lawn_mower`."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")
