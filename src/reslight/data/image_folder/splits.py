"""The parts of a folder of images: training, validation and test, each with a folder for every class."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from reslight.data.image_folder.class_tree import ClassTree, read_tree
from reslight.data.loading.encoded import Files, Images
from reslight.messages import UsageError

PartName = Literal["train", "val", "test"]
FOLDERS: Mapping[PartName, tuple[str, ...]] = MappingProxyType(
    {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
)
"""What the folder of a part may be called."""
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Part:
    """Images with the numbers of their classes."""

    images: Images
    labels: Tensor
    """int64 `(N,)`."""
    fingerprint: str

    @classmethod
    def of(cls, tree: ClassTree) -> "Part":
        """All images of a folder of classes."""
        return cls(Files(tree.paths), torch.tensor(tree.labels, dtype=torch.int64), tree.fingerprint())


@dataclass(frozen=True)
class Parts:
    """A set of images: its classes, and its parts.

    Attributes:
        classes: Names of the classes.
        parts: The parts that are there; `train` alone where nothing is set apart.
        remarks: What a person should know, a line each.
    """

    classes: tuple[str, ...]
    parts: Mapping[PartName, Part]
    remarks: tuple[str, ...] = ()


def trees_in(root: Path) -> dict[PartName, ClassTree]:
    """The folders of classes in `root`: `train` and whichever others there are, or `root` itself as `train`.

    Raises:
        OSError: A folder cannot be opened.
        ValueError: There is none.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}; set data.root to the folder of your images")
    there: dict[PartName, Path] = {
        part: root / name for part, names in FOLDERS.items() for name in reversed(names) if (root / name).is_dir()
    }
    if there and "train" not in there:
        raise UsageError(f"{root} has {' and '.join(there)}, but no train; put train/CLASS/IMAGE there, or the classes' folders alone")
    trees = {part: read_tree(path) for part, path in (there or {"train": root}).items()}
    if not trees["train"].paths:
        raise UsageError(f"{trees['train'].root} holds no images in folders of classes; put CLASS/IMAGE there, or set data.root")
    return trees


def parts_of(trees: Mapping[PartName, ClassTree]) -> Parts:
    """What can be trained and measured on.

    Raises:
        ValueError: There are fewer than two classes, one without images, or one in another part that training has not.
    """
    train = trees["train"]
    if len(train.classes) < 2:
        raise UsageError(f"{train.root} has one class, {train.classes[0]}; a classifier needs two folders of classes or more")
    remarks = []
    for part, tree in trees.items():
        if unknown := [name for name in tree.classes if name not in train.classes]:
            raise UsageError(f"{tree.root} has classes that {train.root} has not: {_several(unknown)}; give both the same folders")
        empty = tree.empty
        if part == "train" and empty:
            raise UsageError(f"{tree.root} has classes without an image: {_several(empty)}; put images there, or remove them")
        if part != "train" and (missing := sorted(set(train.classes) - set(tree.classes) | set(empty))):
            remarks.append(f"{tree.root} has no image of {_several(missing)}")
        if tree.misplaced:
            names = [path.name for path in tree.misplaced]
            remarks.append(f"{tree.root} has images outside of every class's folder, which are left out: {_several(names)}")
    return Parts(train.classes, {part: Part.of(numbered_as(tree, train.classes)) for part, tree in trees.items()}, tuple(remarks))


def numbered_as(tree: ClassTree, classes: tuple[str, ...]) -> ClassTree:
    """The tree with the numbers that its classes have among `classes`."""
    numbers = {name: number for number, name in enumerate(classes)}
    labels = [numbers[tree.classes[label]] for label in tree.labels]
    return ClassTree(tree.root, classes, tree.paths, labels, tree.misplaced, tree.others)


def _several(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
