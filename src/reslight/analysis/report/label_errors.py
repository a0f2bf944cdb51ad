"""Find likely wrong labels: confident learning (Northcutt et al. 2021, arXiv:1911.00068) on calibrated probabilities."""

import torch
from torch import Tensor

LEAST_LIKELY = 0.01
"""Highest calibrated probability of a label that is reported: confident learning alone reports most confident mistakes of a network, too.
docs/guides/report.md has the precision of both."""


def confident_classes(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the class in which the confident joint counts each image, int64 `(N,)`; -1 for images that it leaves out.

    That is the most probable one of the classes whose probability reaches its threshold: the mean probability of the class over the
    images that are labelled with it.

    Args:
        probabilities: `(N, num_classes)`, of networks that were not trained on these images.
        labels: int64 `(N,)`.
    """
    classes = probabilities.shape[1]
    own = probabilities.gather(1, labels[:, None])[:, 0].double()
    counts = torch.bincount(labels, minlength=classes)
    thresholds = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, own) / counts  # NaN, which nothing reaches, without images
    reached = torch.where(probabilities >= thresholds, probabilities, -1.0)
    best = reached.max(dim=1)
    return torch.where(best.values >= 0, best.indices, -1)


def likely_label_errors(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the images whose labels are likely wrong, the least likely label first.

    Args:
        probabilities: Calibrated, `(N, num_classes)`, see `confident_classes`.
        labels: int64 `(N,)`.

    Returns:
        The numbers of the images, and the likely class of each; both int64 `(M,)`.
    """
    likely = confident_classes(probabilities, labels)
    own = probabilities.gather(1, labels[:, None])[:, 0]
    found = ((likely >= 0) & (likely != labels) & (own <= LEAST_LIKELY)).nonzero().flatten()
    order = own[found].argsort(stable=True)
    return found[order], likely[found[order]]
