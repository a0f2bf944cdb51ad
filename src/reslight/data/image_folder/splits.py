"""The training, validation and test split of a folder of images, each with a folder for every class."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from reslight.data.image_folder.class_tree import ClassTree, fingerprint_of, foreign_warning
from reslight.data.image_folder.file_paths import FilePaths
from reslight.data.image_folder.label_table import LabelColumns
from reslight.data.image_folder.pictures import UNLABELLED
from reslight.data.image_folder.tree_index import indexed_tree
from reslight.data.loading.encoded import Files, Images
from reslight.messages import UsageError, counted, shortened, unprintable, visible

SplitName = Literal["train", "val", "test"]
SPLIT_FOLDERS: Mapping[SplitName, tuple[str, ...]] = MappingProxyType(
    {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
)
"""The names that the folder of a split may have; the first one found is used."""
SPLIT_OF: Mapping[str, SplitName] = MappingProxyType({name: split for split, names in SPLIT_FOLDERS.items() for name in names})
"""The split of each of these names."""
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Encoded images with the numbers of their classes."""

    images: Images
    labels: Tensor
    """int64 `(N,)`; of several classes for an image, uint8 `(N, num_classes)`, see `loading.labels`."""
    fingerprint: str
    groups: Tensor | None = None
    """int64 `(N,)`: what each image belongs to, numbered from 0 in the order in which they occur first; None without groups."""
    group_names: Sequence[str] = ()
    """The name of each group."""
    names: Callable[[], Iterable[str]] | None = None
    """Returns the name that each image has in the fingerprint, `CLASS/FILE`; None where images have no names."""

    @cached_property
    def content(self) -> str:
        """The sha256 that identifies the images' contents, see `Images.content`."""
        return self.images.content()

    @classmethod
    def from_tree(cls, tree: ClassTree, classes: Sequence[str]) -> "LabelledImages":
        """Return all images of a folder of classes.

        Args:
            tree: The folder.
            classes: The classes of the dataset, which include those of the folder. An image's label is the number of its class here.
        """
        numbers = {name: number for number, name in enumerate(classes)}
        table = torch.tensor([numbers[name] for name in tree.classes], dtype=torch.int64)
        labels = table[torch.tensor(tree.labels, dtype=torch.int64)]
        images = zip(tree.paths.relative(), tree.paths.sizes().tolist(), strict=True)
        return cls(Files(tree.paths), labels, fingerprint_of(classes, images), names=tree.paths.relative)

    @classmethod
    def unlabelled(cls, images: Images, names: Iterable[str], labels: Sequence[int] = ()) -> "LabelledImages":
        """Return images to predict, some or all of them without labels.

        Args:
            images: The images.
            names: Their names.
            labels: The label of each, or `UNLABELLED`; empty if all are without.
        """
        found = torch.tensor(labels, dtype=torch.int64) if len(labels) else torch.full((len(images),), UNLABELLED)
        return cls(images, found, fingerprint_of((), ((name, 0) for name in names)))


@dataclass(frozen=True)
class ImageSet:
    """The classes and the splits of a dataset.

    Attributes:
        classes: Names of the classes.
        splits: The splits that exist; only `train` where the dataset is not split.
        warnings: What the user should know about the dataset, one line each.
        label_columns: The columns of the label file that are used; None without such a file.
        unlabelled: Test images without labels, which only predictions use; None if there are none.
    """

    classes: tuple[str, ...]
    splits: Mapping[SplitName, LabelledImages]
    warnings: tuple[str, ...] = ()
    label_columns: LabelColumns | None = None
    unlabelled: LabelledImages | None = None

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes, or none."""
        return any(images.labels.ndim == 2 for images in self.splits.values())


def group_numbers(groups: Sequence[str] | None) -> tuple[Tensor | None, tuple[str, ...]]:
    """Return the number of each image's group, in the order in which they occur first, and the groups; None without groups."""
    if groups is None:
        return None, ()
    numbers: dict[str, int] = {}
    found = torch.tensor([numbers.setdefault(group, len(numbers)) for group in groups], dtype=torch.int64)
    return found, tuple(numbers)


def find_class_trees(root: Path, *, partial: bool = False) -> dict[SplitName, ClassTree]:
    """Read the folders of classes in `root`: `train` and the other splits that exist, or `root` itself as `train`.

    Args:
        root: The folder.
        partial: Whether training images may be missing.

    Raises:
        OSError: a missing folder, or one that cannot be opened.
        UsageError: no training images.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"data.root is {root}: there is no such folder. Set it to the folder of your images.")
    found: dict[SplitName, Path] = {
        split: root / name for split, names in SPLIT_FOLDERS.items() for name in reversed(names) if (root / name).is_dir()
    }
    if found and "train" not in found and not partial:
        raise UsageError(
            f"data.root is {root}: it has {' and '.join(found)}, but no train. Add train/CLASS/IMAGE, or leave only folders of classes."
        )
    trees = {split: indexed_tree(path) for split, path in (found or {"train": root}).items()}
    needed = trees.values() if partial else [trees["train"]]
    if not any(tree.paths for tree in needed):
        tree = next(iter(needed))
        if foreign := foreign_warning(tree.root, tree.others):
            raise UsageError(f"{foreign}.")
        raise UsageError(
            f"{tree.root} has no images in folders of classes. Put CLASS/IMAGE there, or set data.root or data.labels{_table_in(root)}."
        )
    return trees


def image_set_of(trees: Mapping[SplitName, ClassTree], *, partial: bool = False) -> ImageSet:
    """Number the classes of all splits as in training.

    Args:
        trees: The folders of the splits.
        partial: Whether a trained network is evaluated on the images: then the classes are those of all splits, and may be few.

    Raises:
        UsageError: fewer than two classes, a training class without images, or a class that training does not have.
    """
    trees, unlabelled = without_unlabelled(trees)
    train = None if partial else trees["train"]
    classes = train.classes if train else tuple(sorted({name for tree in trees.values() for name in tree.classes}))
    if train and len(classes) < 2:
        table = f", or set data.labels{name}" if (name := _table_in(train.root)) else ""
        raise UsageError(f"{train.root} has one class, {classes[0]}: a classifier needs at least two. Add another folder of images{table}.")
    warnings: list[str] = []
    for split, tree in trees.items():
        if bad := unprintable(tree.classes):
            raise UsageError(
                f"{tree.root} has folders of classes whose names are not printable text: {shortened(bad, _SHOWN)}. Rename them; "
                "`reslight data check` lists all."
            )
        if train:
            warnings += _compared(split, tree, train)
        if tree.misplaced:
            names = [visible(path.name) for path in tree.misplaced]
            warnings.append(f"{tree.root} has images outside the folders of classes, which are ignored: {shortened(names, _SHOWN)}")
        if foreign := foreign_warning(tree.root, tree.others):
            warnings.append(foreign)
    if unlabelled:
        images = counted(len(unlabelled.labels), "image")
        warnings.append(f"{trees['train'].root.parent} has {images} without labels in test, which only `reslight predict` uses")
    splits = {split: LabelledImages.from_tree(tree, classes) for split, tree in trees.items()}
    return ImageSet(classes, splits, tuple(warnings), unlabelled=unlabelled)


def _table_in(root: Path) -> str:
    """Return `, such as to FILE` with the name of a table in a folder, which may be its label file; empty without one."""
    names = (path.name for path in root.iterdir() if path.suffix.lower() in (".csv", ".tsv", ".jsonl"))
    found = sorted(names, key=lambda name: (not any(word in name.lower() for word in ("train", "label")), name))
    return f", such as to {visible(found[0])}" if found else ""


def _compared(split: SplitName, tree: ClassTree, train: ClassTree) -> Iterator[str]:
    """Compare the classes of a split with those of training, and yield a warning about classes without images.

    Raises:
        UsageError: a training class without images, or a class that training does not have.
    """
    if unknown := [name for name in tree.classes if name not in train.classes]:
        raise UsageError(
            f"{tree.root} has classes that are missing in {train.root}: {shortened(unknown, _SHOWN)}. "
            "Add their images to training, or remove the folders."
        )
    if split == "train" and tree.empty:
        raise UsageError(f"{tree.root} has classes without images: {shortened(tree.empty, _SHOWN)}. Add images, or remove the folders.")
    if split != "train" and (missing := sorted(set(train.classes) - set(tree.classes) | set(tree.empty))):
        yield f"{tree.root} has no images of {shortened(missing, _SHOWN)}"


def without_unlabelled(trees: Mapping[SplitName, ClassTree]) -> tuple[Mapping[SplitName, ClassTree], LabelledImages | None]:
    """Return the splits with labels, and the test images if they have none: if no folder of `test` is named after a training class."""
    train, test = trees.get("train"), trees.get("test")
    if not (train and test and (test.paths or test.misplaced)) or set(test.classes) & set(train.classes):
        return trees, None
    paths = FilePaths.below(test.root, chain(test.misplaced.relative(), test.paths.relative()))
    images = LabelledImages.unlabelled(Files(paths), paths.relative())
    return {split: tree for split, tree in trees.items() if split != "test"}, images
