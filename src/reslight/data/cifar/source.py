"""`Source`: the files that hold a split, in whichever form it was found, and how they are read."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reslight.messages import UsageError


@dataclass(frozen=True)
class Source:
    """Where the images of a split are."""

    title: str
    """For messages, e.g. `the archive data/cifar-10-python.tar.gz`."""
    files: Sequence[Path]
    """All files that are read; the cache is stale when one of them changes."""
    read: Callable[[], tuple[Tensor, Tensor]]
    """Returns the images, uint8 `(N, C, H, W)`, and the labels, int64 `(N,)`, in the order of the files."""


def decode(data: bytes, size: int, name: str) -> np.ndarray:
    """Return an image file as RGB, uint8 `(size, size, 3)`.

    Args:
        data: The file: PNG, WebP or whatever else Pillow reads.
        size: Height and width that it must have.
        name: What it is called in an error.

    Raises:
        ValueError: It is no image, or not of that size.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size  # known from the header: nothing large is decoded
            if width == height == size:
                return np.asarray(image.convert("RGB"))
    except Exception as error:  # damaged images raise whatever their format's reader stumbles over
        reason = "in no known format" if isinstance(error, UnidentifiedImageError) else error
        raise UsageError(f"{name} cannot be read as an image ({reason}); put a sound copy in its place") from error
    raise UsageError(f"{name} has {width} x {height} pixels, expected {size} x {size}; put the original in its place")


def to_tensors(images: Sequence[np.ndarray], labels: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return `(H, W, C)` images and their labels as uint8 `(N, C, H, W)` and int64 `(N,)`."""
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return stacked, torch.tensor(labels, dtype=torch.int64)


def class_numbers(labels: Sequence[str]) -> dict[str, int]:
    """Return the number of each class by its name as `class_key` writes it."""
    return {class_key(label): number for number, label in enumerate(labels)}


def class_key(name: str) -> str:
    """Return a class's name without the differences between its spellings: `Lawn mower` is `lawn_mower`."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")
