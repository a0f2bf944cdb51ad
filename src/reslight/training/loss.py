"""Training losses, for labels that are class numbers, probabilities, or 0 and 1 for each of several classes."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Literal["cross_entropy", "bce"]


def training_loss(
    logits: Tensor, labels: Tensor, kind: Loss = "cross_entropy", smoothing: float = 0.0, weight: Tensor | None = None
) -> Tensor:
    """Return the mean loss of a batch.

    Args:
        logits: `(N, K)`.
        labels: int64 `(N,)`, or the probability of each class `(N, K)` for mixed images.
        kind: cross_entropy, over the softmax; or bce, binary cross-entropy of each class on its own, averaged over images and
            classes (Wightman et al. 2021, arXiv:2110.00476, section 3.2).
        smoothing: Fraction of the target that is spread evenly over the classes.
        weight: Weight of each class `(K,)`, used as torch does: cross-entropy is divided by the sum of the weights of the labels, or by
            the number of images if labels are probabilities; bce weights the column of each class.

    Returns:
        A scalar.
    """
    if kind == "cross_entropy" and weight is None:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    classes = logits.shape[1]
    # In float32 under mixed precision too: with a thousand classes most of these numbers are tiny.
    wide = logits if logits.dtype == torch.float64 else logits.float()
    weight = None if weight is None else weight.to(wide)
    if kind == "cross_entropy":
        return F.cross_entropy(wide, labels if labels.ndim == 1 else labels.to(wide.dtype), weight, label_smoothing=smoothing)
    targets = F.one_hot(labels, classes) if labels.ndim == 1 else labels
    return F.binary_cross_entropy_with_logits(wide, targets.to(wide.dtype) * (1 - smoothing) + smoothing / classes, weight)


def multi_label_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0, positive_weight: Tensor | None = None) -> Tensor:
    """Return the mean binary cross-entropy of a batch whose images have several labels, over images and classes.

    Args:
        logits: `(N, K)`.
        labels: `(N, K)`, 0 or 1; between them for mixed images.
        smoothing: Labels are moved by half of it away from 0 and 1: each class is a decision between two.
        positive_weight: Weight of the images that have a class `(K,)`, as torch's `pos_weight`.

    Returns:
        A scalar, in float32 under mixed precision too.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    targets = labels.to(wide.dtype) * (1 - smoothing) + smoothing / 2
    weight = None if positive_weight is None else positive_weight.to(wide)
    return F.binary_cross_entropy_with_logits(wide, targets, pos_weight=weight)


def class_of(labels: Tensor) -> Tensor:
    """Return the label of each image, int64 `(N,)`; a mixed image has the class with the highest probability."""
    return labels if labels.ndim == 1 else labels.argmax(dim=1)


def is_correct(logits: Tensor, labels: Tensor, *, multi_label: bool = False) -> Tensor:
    """Return whether the most probable class of each image is its label, or whether all its labels and no others are predicted, `(N,)`."""
    logits = logits.detach()
    return ((logits > 0) == (labels > 0.5)).all(dim=1) if multi_label else logits.argmax(dim=1) == class_of(labels)
