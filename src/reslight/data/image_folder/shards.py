"""Datasets in parquet shards, as on the Hugging Face Hub: encoded images, which threads decode when they are needed."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from reslight.data.image_folder.class_tree import fingerprint_of
from reslight.data.image_folder.shard_cache import UNLABELLED, CachedShard, open_shards
from reslight.data.image_folder.splits import SPLIT_FOLDERS, ImageSet, LabelledImages, SplitName
from reslight.data.loading.parquet import shards_in
from reslight.messages import UsageError, shortened, unprintable, visible

_MAX_CLASSES = 1_000_000
_SHOWN = 5
_SPLIT_FOLDERS = frozenset(name for names in SPLIT_FOLDERS.values() for name in names)
_ADJECTIVES: Mapping[SplitName, str] = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True, eq=False)
class Shards:
    """The images of several shards, one shard after the other."""

    shards: Sequence[CachedShard]
    """The images of each shard."""
    starts: Sequence[int]
    """The number of each shard's first image, and at the end the number of images."""

    @classmethod
    def of(cls, shards: Sequence[CachedShard]) -> "Shards":
        """Return the images of these shards, in this order."""
        return cls(shards, np.cumsum([0, *map(len, shards)]).tolist())

    def __len__(self) -> int:
        """Return the number of images."""
        return self.starts[-1]

    def read(self, number: int) -> bytearray:
        """Return the bytes of an image; empty if the shard has none.

        Raises:
            OSError: a cache that is damaged and cannot be written.
            UsageError: a shard that is damaged, or that changed since it was copied.
        """
        shard, row = self._locate(number)
        return self.shards[shard].read(row)

    def name(self, number: int) -> str:
        """Return the name of an image in messages: its row and its shard."""
        shard, row = self._locate(number)
        return f"row {row} of {visible(self.shards[shard].file, 1000)}"

    def content(self) -> str:
        """Return a sha256 over the checksums of all images."""
        return hashlib.sha256(np.concatenate([shard.index.checksums for shard in self.shards]).astype("<u4").tobytes()).hexdigest()

    def sizes(self) -> np.ndarray:
        """Return the size of each image in bytes."""
        return np.concatenate([np.diff(shard.index.starts) for shard in self.shards])

    def labels(self) -> np.ndarray:
        """Return the label of each image as stored in its shard; -1 for unlabelled images."""
        return np.concatenate([shard.index.labels for shard in self.shards])

    def names(self) -> Iterator[tuple[Path, tuple[str, ...]]]:
        """Yield each shard that has class names, with the names."""
        yield from ((shard.file, shard.names) for shard in self.shards if shard.names)

    def _locate(self, number: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self.starts, number, side="right")) - 1
        return shard, number - self.starts[shard]


def image_set_in_shards(root: Path) -> ImageSet | None:
    """Find a dataset in shards, such as `train-*.parquet`, in `root`, in its folder `data`, or in its only folder that has shards.

    Returns:
        The dataset; None if there are no shards.

    Raises:
        OSError: a cache that cannot be written.
        UsageError: shards that are damaged or incomplete, or that have no training images or fewer than two classes.
    """
    files = _find_files(root)
    if not files:
        return None
    if "train" not in files:
        raise UsageError(f"{root} has shards of {' and '.join(files)}, but none of train. Add them, or set data.root to another dataset.")
    opened = open_shards([file for of_split in files.values() for file in of_split], root)
    shards = {split: Shards.of([opened[file] for file in of_split]) for split, of_split in files.items()}
    labels = {split: found.labels() for split, found in shards.items()}
    warnings = []
    if "test" in labels and len(labels["test"]) and (labels["test"] == UNLABELLED).all():
        warnings.append(f"{root} has no labels for its {len(labels['test']):,} test images, which are ignored")
        del labels["test"]
    classes = _class_names(shards[split] for split in labels) or _class_numbers(labels, root)
    if len(classes) < 2:
        raise UsageError(f"{root} has one class, {classes[0]}: a classifier needs at least two. Set data.root to another dataset.")
    for split, values in labels.items():
        used = _check_labels(values, split, files[split][0].parent, len(classes))
        if missing := [name for number, name in enumerate(classes) if number not in used]:
            warnings.append(f"{root} has no {_ADJECTIVES[split]} images of {shortened(missing, _SHOWN)}")
    splits = {split: _labelled_images(shards[split], values, classes) for split, values in labels.items()}
    return ImageSet(classes, splits, tuple(warnings))


def _check_labels(labels: np.ndarray, split: SplitName, folder: Path, classes: int) -> set[int]:
    """Check the labels of a split and return those that occur.

    Raises:
        UsageError: no images, or a label that is not the number of a class.
    """
    if not len(labels):
        raise UsageError(f"{folder} has no images in the shards of {split}. Get these shards again.")
    used = set(np.unique(labels).tolist())
    if unknown := sorted(used - set(range(classes))):
        label = "-1 (or none)" if unknown[0] == UNLABELLED else unknown[0]
        raise UsageError(f"{folder} has the label {label} in {split}: labels must be 0 to {classes - 1}. Get the shards again.")
    return used


def _labelled_images(shards: Shards, labels: np.ndarray, classes: Sequence[str]) -> LabelledImages:
    rows = ((f"{label}", int(size)) for label, size in zip(labels.tolist(), shards.sizes(), strict=True))
    return LabelledImages(shards, torch.from_numpy(labels.astype(np.int64)), fingerprint_of(classes, rows))


def _class_names(splits: Iterable[Shards]) -> tuple[str, ...] | None:
    """Return the class names in the shards; None if no shard has names.

    Raises:
        UsageError: different names in two shards.
    """
    named = [pair for shards in splits for pair in shards.names()]
    for file, names in named:
        if names != named[0][1]:
            raise UsageError(
                f"{file} has other classes than {named[0][0]}, or another order: all shards must have the same. Get both from one source."
            )
        if bad := unprintable(names):
            raise UsageError(f"{file} has class names that are not printable text: {shortened(bad, _SHOWN)}. Rename them in its schema.")
    return named[0][1] if named else None


def _class_numbers(labels: Mapping[SplitName, np.ndarray], root: Path) -> tuple[str, ...]:
    """Return numbers as the names of the classes, up to the largest label."""
    largest = max(int(values.max(initial=0)) for values in labels.values())
    if largest >= _MAX_CLASSES:
        raise UsageError(f"{root} has the label {largest}: labels must be below {_MAX_CLASSES:,}. Number the classes from 0.")
    return tuple(map(str, range(1 + largest)))


def _find_files(root: Path) -> dict[SplitName, list[Path]]:
    """Find the shards of each split in the first folder that has any.

    Raises:
        UsageError: shards in several folders, or a missing shard.
    """
    for folder in (root, root / "data"):
        if found := _files_in(folder):
            return found
    inner = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")) if root.is_dir() else []
    folders = {folder: found for folder in inner if (found := _files_in(folder))}
    if len(folders) > 1:
        raise UsageError(f"data.root is {root}: it has several sets of shards. Set it to one of {shortened(folders, _SHOWN)}.")
    return next(iter(folders.values()), {})


def _files_in(folder: Path) -> dict[SplitName, list[Path]]:
    found: dict[SplitName, list[Path]] = {}
    if not _may_have_shards(folder):
        return found
    for split, names in SPLIT_FOLDERS.items():
        for name in names:
            if files := shards_in(folder, name):
                found.setdefault(split, files)
    return found


def _may_have_shards(folder: Path) -> bool:
    """Return whether a folder has parquet files or a folder named as a split: a search by pattern would list many images 14 times."""
    try:
        with os.scandir(folder) as entries:
            return any((name := entry.name.lower()).endswith("parquet") or name in _SPLIT_FOLDERS for entry in entries)
    except OSError:
        return False
