"""Datasets in tables with a row for each image, such as parquet shards: from the rows of each split to an `ImageSet`.

Where the rows have the paths that the images once had as files, order and fingerprint are those of folders of classes with these files.
"""

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from reslight.data.image_folder.canonical import canonical_order
from reslight.data.image_folder.class_tree import fingerprint_of
from reslight.data.image_folder.label_sets import joined
from reslight.data.image_folder.pictures import UNLABELLED
from reslight.data.image_folder.splits import SPLIT_OF, ImageSet, LabelledImages, SplitName, group_numbers
from reslight.data.loading.content import ends_of, sampled_content
from reslight.data.loading.encoded import Images
from reslight.messages import UsageError, shortened, unprintable, visible

_MAX_CLASSES = 1_000_000
_SHOWN = 5
_ADJECTIVES: Mapping[SplitName, str] = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True, eq=False)
class Texts:
    """A text for each row, in one piece of memory.

    Attributes:
        data: uint8: all texts in UTF-8, one after the other.
        ends: int64 `(N,)`: where each text ends in `data`.
    """

    data: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> Self:
        """Return texts that are encoded."""
        found = list(texts)
        return cls(np.frombuffer(b"".join(found), np.uint8), np.cumsum([len(text) for text in found], dtype=np.int64))

    def decoded(self) -> list[str]:
        """Return the texts; bytes that are not UTF-8 become surrogates, as in names of files."""
        data, ends = self.data.tobytes(), self.ends.tolist()
        return [data[start:end].decode("utf-8", "surrogateescape") for start, end in zip([0, *ends], ends, strict=False)]


@dataclass(frozen=True, eq=False)
class RowInfo:
    """What the rows of a table say about the images.

    Attributes:
        labels: int64: the class number of each image, -1 for unlabelled images; where an image may have several, all one after another.
        counts: int64 `(N,)`: how many labels each image has; None if each has one.
        names: The class names; empty if the table has none.
        paths: The path of each image; None if the table does not have all.
        groups: The group of each image; None without groups.
        is_packed: Whether the images are in canonical order, and the paths are their names there: `reslight data pack` writes them so.
    """

    labels: np.ndarray
    counts: np.ndarray | None = None
    names: tuple[str, ...] = ()
    paths: Texts | None = None
    groups: Texts | None = None
    is_packed: bool = False

    @property
    def is_unlabelled(self) -> bool:
        """Whether no image has a label."""
        return bool((self.labels == UNLABELLED).all())

    @classmethod
    def joined(cls, parts: Sequence["RowInfo"]) -> "RowInfo":
        """Return what several tables say, one after the other. All must have the same class names, which are not compared."""
        return cls(
            np.concatenate([part.labels for part in parts]),
            _concatenated([part.counts for part in parts]),
            next((part.names for part in parts if part.names), ()),
            _joined_texts([part.paths for part in parts]),
            _joined_texts([part.groups for part in parts]),
            all(part.is_packed for part in parts),
        )


def _concatenated(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if len(there) == len(parts) else None


def _joined_texts(parts: Sequence[Texts | None]) -> Texts | None:
    there = [part for part in parts if part is not None]
    if len(there) < len(parts):
        return None
    starts = np.cumsum([0, *(len(part.data) for part in there)])
    ends = [part.ends + start for part, start in zip(there, starts, strict=False)]
    return Texts(np.concatenate([part.data for part in there]), np.concatenate(ends))


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a split."""

    images: Images
    info: RowInfo
    sizes: np.ndarray
    """int64 `(N,)`: the size of each image in bytes."""
    source: str
    """The folder or the dataset, for messages."""


@dataclass(frozen=True, eq=False)
class Reordered:
    """Images in another order."""

    images: Images
    order: np.ndarray
    """int64 `(N,)`: the number of each image in `images`."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.order)

    def read(self, number: int) -> bytearray:
        """Return the bytes of an image."""
        return self.images.read(int(self.order[number]))

    def name(self, number: int) -> str:
        """Return an image's name for messages."""
        return self.images.name(int(self.order[number]))

    def content(self) -> str:
        """Return what `Files.content` returns for the same images in files."""
        return sampled_content(len(self), lambda number: ends_of(self.read(number)))


def known_splits(given: Mapping[str, Any], root: str) -> tuple[list[str], dict[SplitName, tuple[str, Any]]]:
    """Return a warning about splits of other names than training, validation and test have; and these, beside the name of each.

    Args:
        given: What belongs to each split, by its name.
        root: The dataset, for messages.

    Raises:
        UsageError: only splits of other names.
    """
    found: dict[SplitName, tuple[str, Any]] = {}
    for name, one in given.items():
        if (split := SPLIT_OF.get(name.lower())) is not None:
            found.setdefault(split, (name, one))
    others = shortened([visible(name) for name in given if name not in [known for known, _ in found.values()]], _SHOWN)
    if not found:
        raise UsageError(f"{root} has the splits {others}: one of them must be train. Rename it.")
    return [f"{root} has splits of other names than train, validation and test, which are ignored: {others}"] if others else [], found


def image_set_of_rows(splits: Mapping[SplitName, Rows], root: str, *, partial: bool = False) -> ImageSet:
    """Return the dataset that tables have.

    Args:
        splits: The rows of each split.
        root: The dataset, for messages.
        partial: Whether training images may be missing: then the classes may be few.

    Raises:
        UsageError: no training images, splits with different class names, fewer than two classes, or a label that is not the number of
            a class.
    """
    if "train" not in splits and not partial:
        raise UsageError(f"{root} has images of {' and '.join(splits)}, but none of train. Add them, or set data.root to another dataset.")
    splits, warnings = dict(splits), []
    if "test" in splits and len(splits["test"].images) and splits["test"].info.is_unlabelled:
        warnings.append(f"{root} has no labels for its {len(splits.pop('test').images):,} test images, which are ignored")
    infos = {split: rows.info for split, rows in splits.items()}
    several = {split: info.counts is not None for split, info in infos.items()}
    if len(set(several.values())) > 1:
        lists = " and ".join(split for split, is_list in several.items() if is_list)
        raise UsageError(f"{root} has lists of labels in {lists} only: all splits must have lists, or none. Correct the labels.")
    named = {split: info.names for split, info in infos.items() if info.names}
    for split, names in named.items():
        if names != (first := next(iter(named.values()))):
            order = f"{shortened(names, _SHOWN)} instead of {shortened(first, _SHOWN)}"
            raise UsageError(f"{root} has other classes in {split}, or another order, {order}: all splits must have the same. Cast them.")
    classes = next(iter(named.values()), ()) or _class_numbers(infos, root)
    if bad := unprintable(classes):
        raise UsageError(f"{root} has class names that are not printable text: {shortened(bad, _SHOWN)}. Rename them.")
    if len(classes) < 2 and not partial:
        what = f"one class, {classes[0]}" if classes else "no class"
        raise UsageError(f"{root} has {what}: a classifier needs at least two. Set data.root to another dataset.")
    for split, rows in splits.items():
        used = _check_labels(rows, split, len(classes))
        if not partial and (missing := [name for number, name in enumerate(classes) if number not in used]):
            warnings.append(f"{root} has no {_ADJECTIVES[split]} images of {shortened(missing, _SHOWN)}")
    return ImageSet(classes, {split: _labelled_images(rows, classes) for split, rows in splits.items()}, tuple(warnings))


def _class_numbers(infos: Mapping[SplitName, RowInfo], root: str) -> tuple[str, ...]:
    """Return numbers as the names of the classes, up to the largest label."""
    largest = max(int(info.labels.max(initial=0)) for info in infos.values())
    if largest >= _MAX_CLASSES:
        raise UsageError(f"{root} has the label {largest}: labels must be below {_MAX_CLASSES:,}. Number the classes from 0.")
    return tuple(map(str, range(1 + largest)))


def _check_labels(rows: Rows, split: SplitName, classes: int) -> set[int]:
    """Check the labels of a split and return those that occur.

    Raises:
        UsageError: no images, or a label that is not the number of a class.
    """
    if not len(rows.images):
        raise UsageError(f"{rows.source} has no images in the shards of {split}. Get these shards again.")
    used = set(np.unique(rows.info.labels).tolist())
    if unknown := sorted(used - set(range(classes))):
        label = "-1 (or none)" if unknown[0] == UNLABELLED else unknown[0]
        raise UsageError(f"{rows.source} has the label {label} in {split}: labels must be 0 to {classes - 1}. Get the shards again.")
    return used


def _labelled_images(rows: Rows, classes: Sequence[str]) -> LabelledImages:
    """Return the images of a split, in canonical order if the rows have paths."""
    info, images, sizes, count = rows.info, rows.images, rows.sizes, len(rows.images)
    labels = _label_tensor(info, len(classes))
    groups = info.groups.decoded() if info.groups else None
    if info.paths is None:
        texts = _texts_of(info, list(map(str, range(len(classes)))))
        name = fingerprint_of(classes, zip(texts, sizes.tolist(), strict=True))
        return LabelledImages(images, labels, name, *group_numbers(groups))
    paths = info.paths.decoded()
    if info.is_packed:
        ordered = list(enumerate(paths))
    else:
        ordered = canonical_order(_relative(paths), _texts_of(info, classes), several=info.counts is not None)
    order = np.fromiter((number for number, _ in ordered), np.int64, count)
    name = fingerprint_of(classes, zip((name for _, name in ordered), sizes[order].tolist(), strict=True))
    names = Texts.of(one.encode("utf-8", "surrogateescape") for _, one in ordered)
    groups = [groups[number] for number, _ in ordered] if groups else None
    return LabelledImages(Reordered(images, order), labels[torch.from_numpy(order)], name, *group_numbers(groups), names.decoded)


def _relative(paths: Sequence[str]) -> list[str]:
    """Return absolute paths relative to the innermost folder that has all images, since the folders above it are those of a machine."""
    if not all(path.startswith("/") for path in paths):
        return [path.lstrip("/") for path in paths]
    common = len(posixpath.commonpath({path.rpartition("/")[0] or "/" for path in paths}))
    return [path[common:].lstrip("/") for path in paths]


def _label_tensor(info: RowInfo, classes: int) -> Tensor:
    """Return the labels as `loading.labels` describes them."""
    values = torch.from_numpy(info.labels.astype(np.int64))
    if info.counts is None:
        return values
    labels = torch.zeros(len(info.counts), classes, dtype=torch.uint8)
    labels[torch.arange(len(info.counts)).repeat_interleave(torch.tensor(info.counts)), values] = 1
    return labels


def _texts_of(info: RowInfo, names: Sequence[str]) -> list[str]:
    """Return the class of each image as text; of several, their text as in `label_sets`."""
    if info.counts is None:
        return [names[label] for label in info.labels.tolist()]
    ends = np.cumsum(info.counts).tolist()
    labels = info.labels.tolist()
    return [joined(names[label] for label in labels[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
