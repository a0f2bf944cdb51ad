"""`ImageNet`: the 1,000 classes of ILSVRC 2012 (Russakovsky et al. 2015, https://arxiv.org/abs/1409.0575), or some of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from reslight.data.image_folder.class_tree import ClassTree, fingerprint_of
from reslight.data.image_folder.file_paths import FilePaths
from reslight.data.image_folder.folder import Folder
from reslight.data.image_folder.splits import SPLIT_FOLDERS, ImageSet, LabelledImages, SplitName, image_set_of
from reslight.data.image_folder.tree_index import indexed_tree
from reslight.data.imagenet.label_file import find_label_file, read_label_file
from reslight.data.imagenet.synsets import known_synsets, names_of
from reslight.data.loading.encoded import Files
from reslight.messages import UsageError, shortened

KAGGLE = "ILSVRC/Data/CLS-LOC"
"""The folder of train and val in Kaggle's archive; its label file is outside."""
DEVKIT = ("devkit", "devkit/data", "ILSVRC2012_devkit_t12/data")
"""Folders that may have the devkit's label file."""
_ARCHIVES = (
    (
        "train",
        "ILSVRC2012_img_train.tar",
        "mkdir -p train && tar -xf ILSVRC2012_img_train.tar -C train, and then each archive in train into a folder of its name",
    ),
    ("val", "ILSVRC2012_img_val.tar", "mkdir -p val && tar -xf ILSVRC2012_img_val.tar -C val"),
    ("train", "imagenet-object-localization-challenge.zip", "unzip imagenet-object-localization-challenge.zip"),
    ("train", "imagenet_object_localization_patched2019.tar.gz", "tar -xf imagenet_object_localization_patched2019.tar.gz"),
)
"""Published archives: the split that each one has, its name, and how to unpack it."""


class ImageNet(Folder):
    """ImageNet in its usual layouts: unpacked class folders, as published, Kaggle's, the Hub's shards, or a subset of any.

    `test` evaluates on the official validation images, as is usual. Validation during training uses `val_size` of the training
    images: it chooses the best checkpoint, and images that were used to choose are no longer a test.

    The layout is `ROOT/train/SYNSET/IMAGE` with `ROOT/val/SYNSET/IMAGE`, or with `ROOT/val/IMAGE` and a label file in ROOT, in val or
    in the devkit's folder. In Kaggle's layout, train and val are in `ROOT/ILSVRC/Data/CLS-LOC`, and the label file is in ROOT. All
    layouts of `Folder` are read, too.

    Args:
        root: Folder of the images, or OWNER/DATASET[@REVISION] on the Hub.
        batch_size: Training images per optimizer step, over all devices and accumulation steps.
        eval_batch_size: Images per evaluation batch, over all devices; batch_size if null.
        val_size: Training images to set apart for validation: their number, or their share if below 1; 0 for none.

    Raises:
        OSError: a missing folder, or one that cannot be opened.
        UsageError: a setting that is out of range, or folders in another layout.
    """

    def __init__(
        self, root: str, *, batch_size: int = 256, eval_batch_size: int | None = 500, val_size: float = 10_000, **settings: Any
    ) -> None:
        super().__init__(root, batch_size=batch_size, eval_batch_size=eval_batch_size, val_size=val_size, **settings)
        if self.num_classes == len(known_synsets()):
            self.name = "imagenet"

    def find_image_set(self) -> ImageSet:
        """Return the training images as `train`, and the official validation images as `test`."""
        layout = layout_in(Path(self.root).expanduser()) if self.label_file is None else None
        if layout is not None:
            return _image_set_in(layout)
        found = super().find_image_set()
        if "val" not in found.splits:
            return found
        return replace(found, splits={"train": found.splits["train"], "test": found.splits["val"]})

    def class_names(self) -> tuple[str, ...]:
        """Return torchvision's names of the classes."""
        return names_of(super().class_names(), Path(self.root).expanduser())

    def setup(self, stage: str | None = None) -> None:
        """Prepare the splits of a stage.

        Raises:
            UsageError: no images for the stage.
        """
        if stage in ("test", "predict") and not self.has_test:
            how = _how_to_unpack(Path(self.root).expanduser(), "val") or "Put them into the folder val."
            raise UsageError(f"data.root is {self.root}: it has no validation images, which test evaluates on. {how}")
        super().setup(stage)


@dataclass(frozen=True)
class Layout:
    """The folders of the images."""

    train: Path
    val: Path | None
    label_folders: tuple[Path, ...]
    """Folders that may have a label file."""


def layout_in(root: Path) -> Layout | None:
    """Find a folder `train` with folders of classes, and the validation images beside it; None if there is none.

    Raises:
        OSError: a folder that cannot be opened.
        UsageError: archives that are not unpacked.
    """
    for base in (root, root / KAGGLE):
        if train := _first(base, SPLIT_FOLDERS["train"]):
            _check_unpacked(train)
            if any(entry.is_dir() and not entry.name.startswith(".") for entry in train.iterdir()):
                val = _first(base, SPLIT_FOLDERS["val"])
                return Layout(train, val, label_folders(root, val))
    if how := _how_to_unpack(root, "train"):
        raise UsageError(f"data.root is {root}: it has no images to train with. {how}")
    return None


def label_folders(root: Path, val: Path | None) -> tuple[Path, ...]:
    """Return the folders that may have a label file."""
    return (root, *([val] if val else []), *(root / name for name in DEVKIT))


def tree_from_label_file(layout: Layout, images: Sequence[Path], classes: Sequence[str]) -> ClassTree:
    """Return the validation images, which are in one folder, with the classes from their label file.

    Raises:
        UsageError: no label file, or one of other images.
    """
    path = find_label_file(layout.label_folders, images)
    folder = images[0].parent
    paths, none = FilePaths.below(folder, [image.name for image in images]), FilePaths.below(folder, [])
    return ClassTree(folder, tuple(classes), paths, read_label_file(path, images, classes), none, FilePaths.below(path.parent, [path.name]))


def _image_set_in(layout: Layout) -> ImageSet:
    trees: dict[SplitName, ClassTree] = {"train": indexed_tree(layout.train)}
    classes = trees["train"].classes
    if not trees["train"].paths:
        raise UsageError(f"{layout.train} has no images in folders of classes. Put SYNSET/IMAGE there.")
    if layout.val:
        val = indexed_tree(layout.val)
        if not val.paths and not val.misplaced:
            raise UsageError(f"{layout.val} has no images. Put the validation images there, or remove the folder.")
        trees["test"] = val if val.paths else tree_from_label_file(layout, val.misplaced, classes)
    found = image_set_of(trees)
    if "test" not in trees:
        return found
    return replace(found, splits={"train": found.splits["train"], "test": _sorted_by_name(trees["test"], classes)})


def _sorted_by_name(tree: ClassTree, classes: Sequence[str]) -> LabelledImages:
    """Return the images in an order, and with a fingerprint, that do not depend on whether they are in folders of classes."""
    numbers = {name: number for number, name in enumerate(classes)}
    images = zip(tree.paths.relative(), tree.labels, tree.paths.sizes().tolist(), strict=True)
    rows = sorted((path.rpartition("/")[2], tree.classes[label], path.split("/"), size) for path, label, size in images)
    labels = torch.tensor([numbers[synset] for _, synset, _, _ in rows], dtype=torch.int64)
    fingerprint = fingerprint_of(classes, ((f"{synset}/{name}", size) for name, synset, _, size in rows))
    return LabelledImages(Files(FilePaths.below(tree.root, ("/".join(parts) for _, _, parts, _ in rows))), labels, fingerprint)


def _check_unpacked(train: Path) -> None:
    """Check that the archive of each class, which the training archive consists of, is unpacked.

    Raises:
        UsageError: one is not.
    """
    if packed := [path.name for path in sorted(train.glob("n*.tar")) if not path.with_suffix("").is_dir()]:
        raise UsageError(
            f"{train} has archives that are not unpacked: {shortened(packed, 1)}. In it, run "
            'for f in n*.tar; do mkdir -p "${f%.tar}" && tar -xf "$f" -C "${f%.tar}"; done'
        )


def _how_to_unpack(root: Path, split: SplitName) -> str:
    """Return how to unpack the archive of a split that is in `root`; empty if there is none."""
    found = [how for of, name, how in _ARCHIVES if of == split and (root / name).is_file()]
    return f"Unpack its archive: in {root}, {found[0]}" if found else ""


def _first(base: Path, names: Sequence[str]) -> Path | None:
    return next((base / name for name in names if (base / name).is_dir()), None)
