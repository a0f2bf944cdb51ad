"""Take images, labels and indices out of a batch of any loader, and check that they fit the network."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reslight.messages import UsageError

IMAGES = ("images", "image", "img", "pixel_values")
LABELS = ("labels", "label", "targets", "target")
"""Keys of batches that are mappings."""
_NO_LABELS = torch.empty(0)
_FORMS = "it must be (images, labels), (images, labels, indices), or a mapping with image and label"


class Batch(NamedTuple):
    """What a step of `EvaluationModule` uses of a batch."""

    images: Any
    """`(N, C, H, W)`, floating point; in a test possibly a list of views, see `average_views`."""
    labels: Tensor
    """int64 `(N,)`, or the probability of each class `(N, num_classes)` in training; float32 `(N, num_classes)` for several labels."""
    indices: Tensor | None
    """int64 `(N,)`: the number of each image in its split; None if the loader gives none."""


def parts_of(batch: Any, *, labeled: bool = True) -> Batch:
    """Return the parts of a batch as they are, unchecked.

    Args:
        batch: The batch.
        labeled: Require labels; without them, `labels` is empty.

    Raises:
        UsageError: a batch of another form.
    """
    if isinstance(batch, Mapping):
        images, labels = ([batch[key] for key in keys if key in batch] for keys in (IMAGES, LABELS))
        labels = labels if labels or labeled else [_NO_LABELS]
        if len(images) == len(labels) == 1:
            return Batch(images[0], labels[0], None)
        raise UsageError(f"a batch has the keys {', '.join(map(str, batch))}: {_FORMS}. Return such batches from the loader.")
    if isinstance(batch, tuple | list) and len(batch) in (2, 3):
        return Batch(*batch, *([None] if len(batch) == 2 else []))
    if not labeled and (isinstance(batch, Tensor) or (isinstance(batch, tuple | list) and len(batch) == 1)):
        return Batch(batch if isinstance(batch, Tensor) else batch[0], _NO_LABELS, None)
    size = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
    raise UsageError(f"a batch is a {type(batch).__name__}{size}: {_FORMS}. Return such batches from the loader.")


def images_in(batch: Any) -> int:
    """Return the number of images in a batch of any form: the length of its first tensor; 0 without one."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 1
    values = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else ()
    return next(filter(None, map(images_in, values)), 0)


def checked_images(images: Any, channels: int, dtype: torch.dtype) -> Any:
    """Return images in the network's dtype; views, which only a data module of reslight makes, as they are.

    Raises:
        UsageError: images of another shape or kind, or with values from 0 to 255.
    """
    if isinstance(images, list) and all(isinstance(views, tuple) for views in images):
        return images
    if not isinstance(images, Tensor):
        raise UsageError(f"the images of a batch are a {type(images).__name__}: they must be a tensor. Use ToTensor and a fixed size.")
    if images.ndim != 4 or images.shape[1] != channels:
        raise UsageError(f"images have the shape {tuple(images.shape)}: the network takes (N, {channels}, H, W).")
    if not images.is_floating_point():
        raise UsageError(
            f"images are {images.dtype}: they must be floating point, and normalized as the network expects. "
            "Convert them in the dataset, as torchvision's ToTensor and Normalize do."
        )
    return images if images.dtype == dtype else images.to(dtype)


def checked_labels(labels: Any, images: Any, classes: int, *, probabilities: bool, reads: bool) -> Tensor:
    """Return labels as int64, or as probabilities.

    Args:
        labels: The labels of a batch.
        images: Its images, checked.
        classes: Number of classes.
        probabilities: Whether probabilities are allowed.
        reads: Whether to check the range of the numbers, which waits for a device.

    Raises:
        UsageError: labels of another shape or kind, or out of range.
    """
    allowed = f"class numbers (N,){f' or probabilities (N, {classes})' if probabilities else ''}"
    if not isinstance(labels, Tensor):
        raise UsageError(f"the labels of a batch are a {type(labels).__name__}: they must be a tensor of {allowed}.")
    count = len(images) if isinstance(images, Tensor) else len(labels)
    numbers = not labels.is_floating_point() and labels.dtype != torch.bool
    if not (labels.shape == (count,) if numbers else probabilities and labels.shape == (count, classes)):
        one_hot = f" Use labels.argmax(1){' or labels.float()' if probabilities else ''}." if labels.shape == (count, classes) else ""
        raise UsageError(f"labels are {labels.dtype} {tuple(labels.shape)} for {count} images: they must be {allowed}.{one_hot}")
    if numbers and reads and len(labels):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise UsageError(
                f"labels are from {low} to {high}: they must be 0 to {classes - 1}. Number the classes from 0, or set model.num_classes."
            )
    return labels.long() if numbers else labels


def checked_label_sets(labels: Any, images: Any, classes: int, *, mixed: bool, reads: bool) -> Tensor:
    """Return the labels of images that have several, or none, as float32.

    Args:
        labels: The labels of a batch.
        images: Its images, checked.
        classes: Number of classes.
        mixed: Whether values between 0 and 1 are allowed.
        reads: Whether to check the values, which waits for a device.

    Raises:
        UsageError: labels of another shape or kind, or other values.
    """
    allowed = f"{'0 to 1' if mixed else '0 or 1'} for each class, (N, {classes})"
    count = len(images) if isinstance(images, Tensor) else len(labels)
    if not isinstance(labels, Tensor) or labels.shape != (count, classes):
        what = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else f"a {type(labels).__name__}"
        raise UsageError(f"labels are {what} for {count} images: with several labels they must be {allowed}. Use torch.zeros and set ones.")
    values: Tensor = labels.float()
    if reads and len(values):
        low, high = float(values.min()), float(values.max())
        is_whole = mixed or bool(((values == 0) | (values == 1)).all())
        if not (low >= 0 and high <= 1 and is_whole):
            raise UsageError(f"labels are from {low:g} to {high:g}: with several labels they must be {allowed}. Correct the dataset.")
    return values
