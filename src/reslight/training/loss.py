"""What training minimises, for labels that are numbers of classes and for labels that are probabilities."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Literal["cross_entropy", "bce"]


def training_loss(logits: Tensor, labels: Tensor, kind: Loss = "cross_entropy", smoothing: float = 0.0) -> Tensor:
    """The mean loss of a batch.

    Args:
        logits: `(N, K)`.
        labels: int64 `(N,)`, or the probability of each class `(N, K)`, as mixed images have them.
        kind: Cross-entropy over the softmax; or bce, binary cross-entropy of each class for itself, averaged over images and
            classes (Wightman et al. 2021, arXiv:2110.00476, section 3.2).
        smoothing: Share of the target spread evenly over the classes.
    """
    if kind == "cross_entropy":
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    classes = logits.shape[1]
    targets = F.one_hot(labels, classes) if labels.ndim == 1 else labels
    # as float32 under mixed precision, too: a thousand classes make most of these numbers tiny
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return F.binary_cross_entropy_with_logits(wide, targets.to(wide.dtype) * (1 - smoothing) + smoothing / classes)


def class_of(labels: Tensor) -> Tensor:
    """The class that counts as right, int64 `(N,)`: of a mixed image that of which there is most."""
    return labels if labels.ndim == 1 else labels.argmax(dim=1)
