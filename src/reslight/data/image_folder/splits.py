"""The training, validation and test split of a folder of images, each with a folder for every class."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from reslight.data.image_folder.class_tree import ClassTree, fingerprint_of
from reslight.data.image_folder.label_table import LabelColumns
from reslight.data.image_folder.tree_index import indexed_tree
from reslight.data.loading.encoded import Files, Images
from reslight.messages import UsageError, shortened, unprintable, visible

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


@dataclass(frozen=True)
class ImageSet:
    """The classes and the splits of a dataset.

    Attributes:
        classes: Names of the classes.
        splits: The splits that exist; only `train` where the dataset is not split.
        warnings: What the user should know about the dataset, one line each.
        label_columns: The columns of the label file that are used; None without such a file.
    """

    classes: tuple[str, ...]
    splits: Mapping[SplitName, LabelledImages]
    warnings: tuple[str, ...] = ()
    label_columns: LabelColumns | None = None

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes, or none."""
        return self.splits["train"].labels.ndim == 2


def find_class_trees(root: Path) -> dict[SplitName, ClassTree]:
    """Read the folders of classes in `root`: `train` and the other splits that exist, or `root` itself as `train`.

    Raises:
        OSError: a missing folder, or one that cannot be opened.
        UsageError: no training images.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"data.root is {root}: there is no such folder. Set it to the folder of your images.")
    found: dict[SplitName, Path] = {
        split: root / name for split, names in SPLIT_FOLDERS.items() for name in reversed(names) if (root / name).is_dir()
    }
    if found and "train" not in found:
        raise UsageError(
            f"data.root is {root}: it has {' and '.join(found)}, but no train. Add train/CLASS/IMAGE, or leave only folders of classes."
        )
    trees = {split: indexed_tree(path) for split, path in (found or {"train": root}).items()}
    if not trees["train"].paths:
        raise UsageError(
            f"{trees['train'].root} has no images in folders of classes. Put CLASS/IMAGE there, or set data.root or data.labels."
        )
    return trees


def image_set_of(trees: Mapping[SplitName, ClassTree]) -> ImageSet:
    """Number the classes of all splits as in training.

    Raises:
        UsageError: fewer than two classes, a training class without images, or a class that training does not have.
    """
    train = trees["train"]
    if len(train.classes) < 2:
        raise UsageError(f"{train.root} has one class, {train.classes[0]}: a classifier needs at least two. Add another folder of images.")
    warnings = []
    for split, tree in trees.items():
        if bad := unprintable(tree.classes):
            raise UsageError(
                f"{tree.root} has folders of classes whose names are not printable text: {shortened(bad, _SHOWN)}. Rename them; "
                "`reslight data check` lists all."
            )
        if unknown := [name for name in tree.classes if name not in train.classes]:
            raise UsageError(
                f"{tree.root} has classes that are missing in {train.root}: {shortened(unknown, _SHOWN)}. "
                "Add their images to training, or remove the folders."
            )
        empty = tree.empty
        if split == "train" and empty:
            raise UsageError(f"{tree.root} has classes without images: {shortened(empty, _SHOWN)}. Add images, or remove the folders.")
        if split != "train" and (missing := sorted(set(train.classes) - set(tree.classes) | set(empty))):
            warnings.append(f"{tree.root} has no images of {shortened(missing, _SHOWN)}")
        if tree.misplaced:
            names = [visible(path.name) for path in tree.misplaced]
            warnings.append(f"{tree.root} has images outside the folders of classes, which are ignored: {shortened(names, _SHOWN)}")
    splits = {split: LabelledImages.from_tree(tree, train.classes) for split, tree in trees.items()}
    return ImageSet(train.classes, splits, tuple(warnings))
