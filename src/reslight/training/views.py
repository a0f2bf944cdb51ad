"""The answer to an image of which there are several views: the mean of the probabilities."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def averaged(net: Callable[[Tensor], Tensor], views: Sequence[tuple[Tensor, Tensor]], images: int, num_classes: int) -> Tensor:
    """Log-probabilities `(images, num_classes)` in float32, which are logits of their own softmax.

    Args:
        net: From images `(M, C, H, W)` to logits `(M, num_classes)`.
        views: Pairs of images `(M, C, H, W)` and their owners, int64 `(M,)`; every image of the batch has as many views.
        images: Images in the batch.
        num_classes: Classes of the network.
    """
    if not views:
        return torch.zeros(images, num_classes)
    device = views[0][1].device
    total, seen = torch.zeros(images, num_classes, device=device), torch.zeros(images, 1, device=device)
    for pixels, owners in views:
        total.index_add_(0, owners, net(pixels).float().softmax(dim=1))
        seen.index_add_(0, owners, torch.ones(len(owners), 1, device=device))
    return (total / seen).log()
