"""Images as files, each in the folder of its class."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image
from torch import Tensor

from reslight.data.cifar.metadata import CifarMetadata, SplitName
from reslight.data.cifar.source import Source, class_key, class_numbers, decode, to_tensors
from reslight.messages import UsageError, shortened, visible
from reslight.regular_file import read_regular

_SHOWN_CLASSES = 10
_LARGEST = 2**24
"""Bytes of an image file that are read at most; an image of 32 x 32 pixels has a few thousand."""


def find(folders: Sequence[Path], metadata: CifarMetadata, split: SplitName) -> Source | None:
    """Find `train/CLASS/IMAGE` or `test/CLASS/IMAGE` in one of the folders; superclasses may be in between.

    Raises:
        UsageError: a folder of the split without images.
    """
    empty = None
    for place in [folder / split for folder in folders if (folder / split).is_dir()]:
        if files := _image_files(place):
            return Source(f"the class folders in {place}", files, partial(_read, files, metadata))
        empty = empty or place
    if empty:
        raise UsageError(f"{empty} has no images in folders of classes. Put {split}/CLASS/IMAGE there, or remove the folder.")
    return None


def _image_files(folder: Path) -> list[Path]:
    suffixes = Image.registered_extensions()
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        if place != str(folder):  # images outside the class folders have no class
            # Strings, not Paths: with 50,000 files each operation on a Path counts.
            here, shown = Path(place), (name for name in sorted(names) if not name.startswith("."))
            found += [here / name for name in shown if f".{name.rpartition('.')[2].lower()}" in suffixes]
    return found


def _read(files: Sequence[Path], metadata: CifarMetadata) -> tuple[Tensor, Tensor]:
    numbers = class_numbers(metadata.labels)
    images, labels = [], []
    for file in files:
        label = numbers.get(class_key(file.parent.name))
        if label is None:
            folder, classes = visible(file.parent, 1000), shortened(metadata.labels, _SHOWN_CLASSES)
            raise UsageError(f"{folder} is not named after a class of {metadata.title} ({classes}). Rename the folder, or set data.root.")
        images.append(decode(read_regular(file, _LARGEST), visible(file, 1000)))
        labels.append(label)
    return to_tensors(images, labels)
