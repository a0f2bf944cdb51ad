"""Datasets in parquet shards, as on the Hugging Face Hub: encoded images, which threads decode when they are needed."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reslight.data.image_folder.label_files import LabelFiles
from reslight.data.image_folder.label_table import LabelColumns, read_label_table
from reslight.data.image_folder.labelled_folder import image_set_of_labels
from reslight.data.image_folder.rows import RowInfo, Rows, image_set_of_rows
from reslight.data.image_folder.shard_cache import CachedShard, is_copied, open_shards
from reslight.data.image_folder.splits import SPLIT_FOLDERS, ImageSet, SplitName
from reslight.data.loading.parquet import has_only_paths, opened, shards_in
from reslight.messages import UsageError, shortened, unprintable, visible

_SHOWN = 5
_SPLIT_FOLDERS = frozenset(name for names in SPLIT_FOLDERS.values() for name in names)


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

    def rows(self, source: str) -> Rows:
        """Return the rows of all shards.

        Args:
            source: The folder, for messages.

        Raises:
            UsageError: groups in some shards only.
        """
        if len({shard.index.info.groups is None for shard in self.shards}) > 1:
            ungrouped = next(shard.file for shard in self.shards if shard.index.info.groups is None)
            raise UsageError(f"{ungrouped} has no groups, and other shards have: all or none must. Add the column, or remove it.")
        sizes = np.concatenate([np.diff(shard.index.starts) for shard in self.shards])
        return Rows(self, RowInfo.joined([shard.index.info for shard in self.shards]), sizes, source)

    def _locate(self, number: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self.starts, number, side="right")) - 1
        return shard, number - self.starts[shard]


def label_files_of_shards(root: Path, columns: LabelColumns = LabelColumns()) -> LabelFiles | None:
    """Return the shards of a dataset as label files, if they have the paths of images instead of the images.

    Args:
        root: See `image_set_in_shards`.
        columns: The names of their columns, where they are not the usual ones.

    Raises:
        UsageError: shards that are damaged or incomplete, or without the columns of a label file.
    """
    return _as_label_files(root, _find_files(root), columns)


def _as_label_files(root: Path, files: Mapping[SplitName, list[Path]], columns: LabelColumns) -> LabelFiles | None:
    first = next((file for of_split in files.values() for file in of_split), None)
    if first is None or is_copied(first):
        return None
    with opened(first) as shard:
        if not has_only_paths(shard):
            return None
    return LabelFiles(root, [(read_label_table(file, columns), split) for split, of_split in files.items() for file in of_split])


def image_set_in_shards(root: Path, columns: LabelColumns = LabelColumns(), *, partial: bool = False) -> ImageSet | None:
    """Find a dataset in shards, such as `train-*.parquet`, in `root`, in its folder `data`, or in its only folder that has shards.

    Shards with the paths of images instead of the images are read as label files.

    Args:
        root: The folder.
        columns: The names of the columns of shards with paths, where they are not the usual ones.
        partial: Whether training images may be missing: then the classes may be few.

    Returns:
        The dataset; None if there are no shards.

    Raises:
        OSError: a cache that cannot be written.
        UsageError: shards that are damaged or incomplete, or that have no training images or fewer than two classes.
    """
    files = _find_files(root)
    if not files:
        return None
    if labels := _as_label_files(root, files, columns):
        return image_set_of_labels(labels, partial=partial)
    if "train" not in files and not partial:
        raise UsageError(f"{root} has shards of {' and '.join(files)}, but none of train. Add them, or set data.root to another dataset.")
    copies = open_shards([file for of_split in files.values() for file in of_split], root)
    shards = {split: Shards.of([copies[file] for file in of_split]) for split, of_split in files.items()}
    _check_same_names([shard for of_split in shards.values() for shard in of_split.shards])
    rows = {split: found.rows(str(files[split][0].parent)) for split, found in shards.items()}
    return image_set_of_rows(rows, str(root), partial=partial)


def _check_same_names(shards: Sequence[CachedShard]) -> None:
    """Check that all shards with class names have the same, and that all or none have lists of labels.

    Raises:
        UsageError: a shard that differs.
    """
    named = [shard for shard in shards if (info := shard.index.info).names and not info.is_unlabelled]
    for shard in named:
        if shard.index.info.names != named[0].index.info.names:
            raise UsageError(
                f"{shard.file} has other classes than {named[0].file}, or another order: all shards must have the same. "
                "Get both from one source."
            )
        if bad := unprintable(shard.index.info.names):
            text = f"has class names that are not printable text: {shortened(bad, _SHOWN)}. Rename them in its schema."
            raise UsageError(f"{shard.file} {text}")
    for shard in shards:
        if (shard.index.info.counts is None) != (shards[0].index.info.counts is None):
            raise UsageError(f"{shard.file} has lists of labels, or {shards[0].file} has: all shards must have them, or none.")


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
