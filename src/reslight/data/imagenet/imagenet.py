"""`ImageNet`: the 1,000 classes of ILSVRC 2012 (Russakovsky et al. 2015, https://arxiv.org/abs/1409.0575), or some of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from reslight.data.augment.augment import Augment
from reslight.data.augment.mixup import Mix
from reslight.data.image_folder.class_tree import ClassTree, fingerprint_of, read_tree, size_of
from reslight.data.image_folder.folder import AUGMENT, IMAGENET, SCALES, Crop, Folder, TestViews
from reslight.data.image_folder.splits import SPLIT_FOLDERS, ImageSet, LabelledImages, SplitName, image_set_of
from reslight.data.imagenet.label_file import find_label_file, read_label_file
from reslight.data.imagenet.synsets import known_synsets, names_of
from reslight.data.loading.encoded import Files, OnBadImage
from reslight.messages import UsageError
from reslight.preprocess import Preprocess

KAGGLE = "ILSVRC/Data/CLS-LOC"
"""Where Kaggle's archive has the folders train and val; its label file is outside."""
DEVKIT = ("devkit", "devkit/data", "ILSVRC2012_devkit_t12/data")
"""Where the devkit's label file may be."""
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
"""What of ImageNet is published as what, and how it is unpacked."""


class ImageNet(Folder):
    """ImageNet as people have it: unpacked, in class folders or as it is published; Kaggle's; the Hub's shards; any part of it.

    The official validation images are what `test` measures, as everybody reports it. Validation in training is on
    `val_size` of the training images: it chooses the best checkpoint, and images that choose are no test any more.

    `ROOT/train/SYNSET/IMAGE` beside `ROOT/val/SYNSET/IMAGE`, or `ROOT/val/IMAGE` and a label file in ROOT, in val or in the
    devkit's folder; for Kaggle's, `ROOT/ILSVRC/Data/CLS-LOC` in the place of ROOT, and the label file in ROOT; else all that
    `Folder` reads.
    """

    def __init__(
        self,
        root: str,
        preprocess: Preprocess = IMAGENET,
        crop: Crop = Crop(),
        batch_size: int = 256,
        eval_batch_size: int | None = 500,
        val_size: float = 10_000,
        threads: int | None = None,
        on_bad_image: OnBadImage = "raise",
        test_views: TestViews = "center",
        test_scales: tuple[int, ...] = SCALES,
        repeated_augmentation: int = 1,
        seed: int | None = None,
        augment: Augment = AUGMENT,
        mix: Mix = Mix(),
    ) -> None:
        """Look through the folders; no image is opened yet.

        Args:
            root: Folder of the images, or OWNER/DATASET[@REVISION] on the Hub.
            preprocess: How to feed the network: as ImageNet's are. On the command line model.init_from says what is not set otherwise.
            crop: Which part of a training image is seen.
            batch_size: Training images per optimizer step, over all devices and accumulation steps.
            eval_batch_size: Images per evaluation batch, over all devices; batch_size when left out.
            val_size: Training images to set apart for validation, or below 1 their share; 0 for none.
            threads: Threads that decode images, on each device; the machine's cores, shared by its devices, when left out.
            on_bad_image: raise an error at an image that cannot be read, or skip it with a warning.
            test_views: What test, validate and predict show the network of each image: its center; ten_crop, the paper's corners and
                center, mirrored too; or multi_scale, all of it at each of test_scales, mirrored too. Probabilities are averaged.
            test_scales: Lengths of the shorter side, in pixels (multi_scale).
            repeated_augmentation: Copies of an image in a training batch, each augmented for itself.
            seed: Seed of the order and the augmentation; seed_everything's when left out, 0 where there is none.
            augment: Augmentation of training images, after the crop.
            mix: Training images mixed with one another (mixup, cutmix).

        Raises:
            OSError: A folder is not there or cannot be opened.
            ValueError: A setting is out of range, or the folders are not as described.
        """
        super().__init__(
            root=root,
            preprocess=preprocess,
            crop=crop,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=val_size,
            threads=threads,
            on_bad_image=on_bad_image,
            test_views=test_views,
            test_scales=test_scales,
            repeated_augmentation=repeated_augmentation,
            seed=seed,
            augment=augment,
            mix=mix,
        )
        if self.num_classes == len(known_synsets()):
            self.name = "imagenet"

    def find_image_set(self) -> ImageSet:
        """The parts of the set: `train`, and the official validation images as `test`."""
        layout = layout_in(Path(self.root).expanduser())
        if layout is not None:
            return _image_set_in(layout)
        found = super().find_image_set()
        if "val" not in found.splits:
            return found
        return replace(found, splits={"train": found.splits["train"], "test": found.splits["val"]})

    def class_names(self) -> tuple[str, ...]:
        """What people call the classes: torchvision's names."""
        return names_of(super().class_names(), Path(self.root).expanduser())

    def setup(self, stage: str | None = None) -> None:
        """Prepare the splits of a stage.

        Raises:
            ValueError: There is nothing to measure on.
        """
        if stage in ("test", "predict") and not self.has_test:
            root = Path(self.root).expanduser()
            raise UsageError(f"{self.root} has no validation images, which test measures; {_packed(root, 'val') or 'put them into val'}")
        super().setup(stage)


@dataclass(frozen=True)
class Layout:
    """Where the images are."""

    train: Path
    val: Path | None
    places: tuple[Path, ...]
    """Where a label file may be."""


def layout_in(root: Path) -> Layout | None:
    """Look for a folder `train` with folders of classes, and for the validation images beside it.

    Raises:
        OSError: A folder cannot be opened.
        ValueError: Something is still packed.
    """
    for base in (root, root / KAGGLE):
        if train := _first(base, SPLIT_FOLDERS["train"]):
            _check_unpacked(train)
            if any(entry.is_dir() and not entry.name.startswith(".") for entry in train.iterdir()):
                val = _first(base, SPLIT_FOLDERS["val"])
                return Layout(train, val, label_places(root, val))
    if how := _packed(root, "train"):
        raise UsageError(f"{root} has no images to train with; {how}")
    return None


def label_places(root: Path, val: Path | None) -> tuple[Path, ...]:
    """Where a label file may be."""
    return (root, *([val] if val else []), *(root / name for name in DEVKIT))


def labelled(layout: Layout, images: Sequence[Path], classes: Sequence[str]) -> ClassTree:
    """The validation images, in one folder, with the classes that a label file gives them.

    Raises:
        ValueError: There is none, or it is not of these images.
    """
    path = find_label_file(layout.places, images)
    return ClassTree(images[0].parent, tuple(classes), images, read_label_file(path, images, classes), [], [path])


def _image_set_in(layout: Layout) -> ImageSet:
    trees: dict[SplitName, ClassTree] = {"train": read_tree(layout.train)}
    classes = trees["train"].classes
    if not trees["train"].paths:
        raise UsageError(f"{layout.train} holds no images in folders of classes; put SYNSET/IMAGE there")
    if layout.val:
        val = read_tree(layout.val)
        if not val.paths and not val.misplaced:
            raise UsageError(f"{layout.val} holds no images; put the validation images there, or remove it")
        trees["test"] = val if val.paths else labelled(layout, val.misplaced, classes)
    parts = image_set_of(trees)
    if "test" not in trees:
        return parts
    return replace(parts, splits={"train": parts.splits["train"], "test": _by_name(trees["test"], classes)})


def _by_name(tree: ClassTree, classes: Sequence[str]) -> LabelledImages:
    """The same images in the same order, and under the same fingerprint, with folders of classes and without."""
    numbers = {name: number for number, name in enumerate(classes)}
    rows = sorted((path.name, tree.classes[label], path) for path, label in zip(tree.paths, tree.labels, strict=True))
    labels = torch.tensor([numbers[synset] for _, synset, _ in rows], dtype=torch.int64)
    fingerprint = fingerprint_of(classes, ((f"{synset}/{name}", size_of(path)) for name, synset, path in rows))
    return LabelledImages(Files([path for _, _, path in rows]), labels, fingerprint)


def _check_unpacked(train: Path) -> None:
    """Of the training set's archive, the archive of each class.

    Raises:
        ValueError: One is not unpacked.
    """
    if packed := [path for path in sorted(train.glob("n*.tar")) if not path.with_suffix("").is_dir()]:
        more = f" and {len(packed) - 1:,} more" if len(packed) > 1 else ""
        raise UsageError(
            f"{train} has {packed[0].name}{more} still packed; in it, "
            'for f in n*.tar; do mkdir -p "${f%.tar}" && tar -xf "$f" -C "${f%.tar}"; done'
        )


def _packed(root: Path, part: SplitName) -> str:
    """How to unpack a published archive that is there; empty where there is none."""
    there = [how for of, name, how in _ARCHIVES if of == part and (root / name).is_file()]
    return f"unpack its archive: in {root}, {there[0]}" if there else ""


def _first(base: Path, names: Sequence[str]) -> Path | None:
    return next((base / name for name in names if (base / name).is_dir()), None)
