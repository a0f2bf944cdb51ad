"""The datasets that model cards and checkpoints name."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reslight.messages import UsageError, data_root_called, shortened, visible
from reslight.preprocess import Preprocess
from reslight.weights import Record

if TYPE_CHECKING:
    from reslight.data import ImageDataModule
    from reslight.data.image_folder.other_images import EvaluationFolder

_IMAGENET = 1000
"""Classes of ImageNet."""


def training_data(record: Record) -> Mapping[str, Any]:
    """Return what is known of the training data.

    For weights that do not name theirs, such as converted ones: CIFAR if the input has its size and the classes its number, and no other
    names; ImageNet for 1,000 classes; or else class folders.
    """
    from reslight.data.cifar.metadata import METADATA, SIZE

    if "name" in record.data:
        return record.data
    for name, metadata in METADATA.items():
        if (record.preprocess.size, record.net.num_classes) == (SIZE, len(metadata.labels)) and record.labels in (None, metadata.labels):
            return {"name": name}
    return {"kind": "ImageNet" if record.net.num_classes == _IMAGENET else "Folder"}


def datamodule_of(
    data: Mapping[str, Any], preprocess: Preprocess, root: str, labels: str | None = None, names: Sequence[str] | None = None
) -> "ImageDataModule":
    """Return the dataset that a card or a checkpoint names, without reading images.

    Args:
        data: What is known of the training data: name, kind, val_size, fold, labels_columns.
        preprocess: How images are preprocessed, for folders of images.
        root: The folder of the images, for datasets on disk.
        labels: The label file of a folder of images; None for class folders, or for `metadata.csv` and the like.
        names: Names of the network's classes, for streams that do not name them.

    Raises:
        UsageError: a dataset that reslight does not have.
    """
    from reslight.data import CIFAR, Digits, Folder, ImageNet
    from reslight.data.image_folder.label_table import LabelColumns

    name, val_size = data.get("name"), data.get("val_size", 0)
    if type(val_size) is not int:
        raise UsageError(f"reslight.data.val_size is {str(val_size)[:40]!r}: it must be a whole number. Get the weights again.")
    if name == "digits":
        return Digits(val_size=val_size)
    if name in ("cifar10", "cifar100"):
        return CIFAR(name, root, val_size=val_size)
    if (kind := data.get("kind")) in ("Folder", "ImageNet"):
        columns = LabelColumns.of_card(data.get("labels_columns"))
        settings: dict[str, Any] = {"val_size": val_size, "fold": data.get("fold"), "labels": labels, "labels_columns": columns}
        settings["on_bad_image"] = "skip"  # as training may have; results tell how many images they count
        return (ImageNet if kind == "ImageNet" else Folder)(root, preprocess=preprocess, **settings)
    if kind == "Stream":
        from reslight.data import Stream

        return Stream(root, preprocess=preprocess, classes=None if names is None else list(names))
    raise UsageError(
        f"the card's dataset is {str(name)[:40]!r}: reslight has digits, cifar10, cifar100, image folders and streams. "
        "Evaluate them yourself."
    )


def validation_fingerprint(data: Mapping[str, Any]) -> str | None:
    """Return the fingerprint of the validation images that training left out; None if it is not known or there were none.

    Args:
        data: What is known of the training data.
    """
    found: str | None = data.get("splits", {}).get("val", {}).get("fingerprint")
    return found


def check_left_out(data: Mapping[str, Any], fingerprint: str, root: str) -> None:
    """Check that validation images are those that training left out.

    Args:
        data: What is known of the training data.
        fingerprint: Of the images.
        root: Their folder, for the message.

    Raises:
        UsageError: other images, some of which may be training images.
    """
    if validation_fingerprint(data) not in (None, fingerprint):
        raise UsageError(f"--data is {root}: its validation images are not those that training left out. Give the data of the training.")


def data_of(record: Record, root: str, labels: str | None = None, splits: Collection[str] = ()) -> "ImageDataModule":
    """Return the dataset of a record with the splits of its results loaded, or with `splits` if there are any.

    Raises:
        UsageError: a dataset with other classes or channels than the weights.
    """
    with data_root_called("--data"):
        about = training_data(record)
        others = other_images(about, record.labels, record.preprocess, root, labels)
        made = others or datamodule_of(about, record.preprocess, root, labels, record.labels)
    if missing := [visible(name) for name in record.labels or () if name not in made.labels]:
        classes = "classes" if len(missing) > 1 else "class"
        raise UsageError(f"{root} has no {classes} {shortened(missing)}, which the card has. Give the card's dataset as --data.")
    if record.labels is not None and len(made.labels) == len(record.labels) and made.labels != tuple(record.labels):
        here, there = next(pair for pair in zip(made.labels, record.labels, strict=True) if pair[0] != pair[1])
        raise UsageError(
            f"{root} has other classes than the card: {visible(here)!r} instead of {visible(there)!r}. Give the card's dataset as --data."
        )
    if (made.num_classes, made.in_channels) != (record.net.num_classes, record.net.in_channels):
        raise UsageError(
            f"{made.name} has {made.num_classes} classes and {made.in_channels} channels: the network has {record.net.num_classes} and "
            f"{record.net.in_channels}. Give the card's dataset as --data."
        )
    if getattr(made, "multi_label", False) != record.multi_label:
        kinds = ("several labels", "one label") if record.multi_label else ("one label", "several labels")
        raise UsageError(f"{root} has {kinds[1]} for each image: the weights are for {kinds[0]}. Give the card's dataset as --data.")
    claimed = {result.split for result in record.metrics}
    claimed |= {"test" if record.calibration.twin else "val"} if record.calibration else set()
    needed = set(splits) or claimed or {"test" if getattr(made, "has_test", True) else "val"}
    if not (claimed or splits) and "val" in needed and not made.has_validation:
        raise UsageError(f"--data is {root}: it has neither test nor validation images. Put them into its folder test or val.")
    with data_root_called("--data"):
        stages = {"val": ("validate", made.has_validation), "test": ("test", getattr(made, "has_test", True))}
        present = {split for split, (_, is_there) in stages.items() if is_there}
        needed = needed & present or present or needed  # other images than the card's may be in another split
        for split, (stage, _) in stages.items():
            if split in needed:
                made.setup(stage)
    return made


def split_to_evaluate(data: "ImageDataModule") -> str:
    """Return the name of the split that is evaluated where a card names none: the test images or, without these, the validation images."""
    return "test" if "test" in data.splits else "val"


def other_images(
    data: Mapping[str, Any], names: Sequence[str] | None, preprocess: Preprocess, root: str, labels: str | None = None
) -> "EvaluationFolder | None":
    """Return the dataset for a network that was trained on a folder of images: its classes are found by their names, and may be few.

    Args:
        data: What is known of the training data, see `datamodule_of`.
        names: Name of each class; None if they are not known.
        preprocess: How images are preprocessed.
        root: The folder of the images.
        labels: Their label file; None for class folders, or for `metadata.csv` and the like.

    Returns:
        The dataset; None for networks of another dataset or without names of classes, and for ImageNet's own folders.
    """
    from reslight.data.image_folder.label_table import LabelColumns
    from reslight.data.image_folder.other_images import EvaluationFolder
    from reslight.data.imagenet.imagenet import layout_in
    from reslight.data.imagenet.other_images import ImageNetEvaluation

    is_imagenet = data.get("kind") == "ImageNet"
    if names is None or data.get("kind") not in ("Folder", "ImageNet") or type(data.get("val_size", 0)) is not int:
        return None
    if is_imagenet and Path(root).is_dir() and layout_in(Path(root)):
        return None
    content = data.get("splits", {}).get("train", {}).get("content")
    settings = {"val_size": data.get("val_size", 0), "fold": data.get("fold"), "labels": labels, "preprocess": preprocess}
    settings |= {"on_unknown_class": "skip", "on_bad_image": "skip"}
    columns = LabelColumns.of_card(data.get("labels_columns"))
    kind = ImageNetEvaluation if is_imagenet else EvaluationFolder
    return kind(root, names, trained_on=content, labels_columns=columns, **settings)
