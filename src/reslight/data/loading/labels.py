"""Labels of a split: a class number for each image, int64 `(N,)`, or 0 and 1 for each of its classes, uint8 `(N, num_classes)`."""

import torch
from torch import Tensor


def class_counts(labels: Tensor, num_classes: int) -> Tensor:
    """Return the number of images of each class, int64 `(num_classes,)` on the CPU."""
    labels = labels.cpu()
    return labels.sum(dim=0, dtype=torch.int64) if labels.ndim == 2 else labels.bincount(minlength=num_classes)


def strata(labels: Tensor) -> Tensor:
    """Return the number of the class by which each image is stratified, int64 `(N,)`.

    Of several classes it is the one with the fewest images, ties to the lower number: rare classes are divided exactly in proportion, and
    frequent ones nearly. Images without a class are a class of their own, the last one.
    """
    if labels.ndim == 1:
        return labels
    classes = labels.shape[1]
    counts = class_counts(labels, classes)
    rarest_first = counts.argsort(stable=True)
    rank = torch.where(labels.bool()[:, rarest_first], torch.arange(classes), classes).amin(dim=1)
    return torch.cat([rarest_first, rarest_first.new_full((1,), classes)])[rank]
