"""Match the classes of images with those of a trained network, by their names."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from reslight.data.image_folder.splits import ImageSet, LabelledImages
from reslight.messages import UsageError, counted, shortened, visible

OnUnknownClass = Literal["raise", "skip"]
SKIPPED = -2
"""The label of an image that is left out, since its class is not known."""
_SHOWN = 5


def matched(found: ImageSet, classes: Sequence[str], root: str, *, skips: bool) -> ImageSet:
    """Number the classes of images as a trained network does.

    Args:
        found: The images, with classes of their own.
        classes: The network's classes.
        root: The folder of the images, for messages.
        skips: Give images of a class that the network does not know the label `SKIPPED`; of several labels of an image, leave out those.

    Returns:
        The images with the network's classes. Warnings name the classes that have no images, and those that are not known.

    Raises:
        UsageError: a class that the network does not know, without `skips`; or no class that it knows.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    table = torch.tensor([numbers.get(name, SKIPPED) for name in found.classes], dtype=torch.int64)
    used = {split: used_classes(images.labels, len(found.classes)) for split, images in found.splits.items()}
    unknown = sorted({found.classes[number] for of_split in used.values() for number in of_split if table[number] == SKIPPED})
    listed, what = shortened([visible(name) for name in unknown], _SHOWN), counted(len(unknown), "class", "classes")
    if unknown and not any(name in numbers for name in found.classes):
        known = shortened([visible(name) for name in classes], _SHOWN)
        raise UsageError(f"data.root is {root}: its classes are {listed}, and the network knows {known}. Use images of these classes.")
    if unknown and not skips:
        raise UsageError(
            f"data.root is {root}: it has {what} that the network does not know: {listed}. "
            "Remove the images, or set data.on_unknown_class to skip."
        )
    warnings = []
    for split, of_split in used.items():
        labels = found.splits[split].labels
        is_affected = table[labels] == SKIPPED if labels.ndim == 1 else labels[:, table == SKIPPED].any(dim=1)
        if affected := int(is_affected.sum()):
            warnings.append(f"{root} has {affected:,} of {len(labels):,} {split} images of {what} that the network does not know: {listed}")
        present = {int(table[number]) for number in of_split}
        if missing := [visible(name) for number, name in enumerate(classes) if number not in present]:
            count = f"{len(missing):,} of the network's {len(classes):,} classes"
            warnings.append(f"{root} has no {split} images of {count}: {shortened(missing, _SHOWN)}")
    splits = {split: _renumbered(images, table, len(classes)) for split, images in found.splits.items()}
    return replace(found, classes=tuple(classes), splits=splits, warnings=(*found.warnings, *warnings))


def used_classes(labels: Tensor, classes: int) -> list[int]:
    """Return the numbers of the classes that have images, ascending.

    Args:
        labels: See `loading.labels`.
        classes: The number of classes.
    """
    counts = labels.bincount(minlength=classes) if labels.ndim == 1 else labels.sum(dim=0)
    found: list[int] = counts.nonzero().flatten().tolist()
    return found


def _renumbered(images: LabelledImages, table: Tensor, classes: int) -> LabelledImages:
    if images.labels.ndim == 1:
        return replace(images, labels=table[images.labels])
    labels, known = images.labels.new_zeros(len(images.labels), classes), table != SKIPPED
    labels[:, table[known]] = images.labels[:, known]
    return replace(images, labels=labels)
