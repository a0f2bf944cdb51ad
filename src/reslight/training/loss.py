"""Training losses, for labels that are class numbers or probabilities."""

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


def class_of(labels: Tensor) -> Tensor:
    """Return the label of each image, int64 `(N,)`; a mixed image has the class with the highest probability."""
    return labels if labels.ndim == 1 else labels.argmax(dim=1)
