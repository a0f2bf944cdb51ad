"""Grad-CAM: where in an image a network found a class (Selvaraju et al. 2017, arXiv:1610.02391)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from reslight.models import ResNet

_COLORS = torch.tensor([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]])
"""Five colors of matplotlib's inferno, from 0 to 1: dark to light, also for color-blind readers and in gray."""
_SHARE = 0.55
"""Of the heat map's color in the mixture with the image."""


@torch.inference_mode()
def grad_cam(net: ResNet, images: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the logits of images, and the heat map of a class for each.

    A map is the mean of the last feature maps, weighted by the mean gradient of the class's logit with respect to each, where it is
    positive. No backward pass is needed: between those maps and the logits there are only a mean over the H x W positions and a linear
    layer, so the gradient is the weight of the linear layer divided by H * W.

    Args:
        net: A network in eval mode.
        images: Normalized images `(N, C, H, W)`.
        classes: int64 `(N,)`; the most probable ones if None.

    Returns:
        Logits `(N, num_classes)`, and maps `(N, h, w)`, at least 0, in the size of the last stage's output.
    """
    inputs: list[Tensor] = []
    handle = net.avgpool.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    try:
        logits: Tensor = net(images)
    finally:
        handle.remove()
    maps = inputs[0]
    weights = net.fc.weight[logits.argmax(dim=1) if classes is None else classes] / maps[0, 0].numel()
    return logits, torch.einsum("nc,nchw->nhw", weights, maps).relu()


def enlarged(heat: Tensor, size: tuple[int, int]) -> Tensor:
    """Return heat maps `(N, h, w)` in another size, each divided by its maximum: float32 `(N, *size)`, 0 to 1."""
    large = F.interpolate(heat.float()[:, None], size, mode="bilinear")[:, 0]
    return large / large.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)


def rgb(image: Tensor) -> Tensor:
    """Return an image `(C, H, W)` as `(H, W, 3)`: the first three channels, or the first one as gray."""
    return (image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)).permute(1, 2, 0)


def overlay(image: Tensor, heat: Tensor) -> Tensor:
    """Return an image uint8 `(H, W, 3)` under a heat map `(H, W)` of values 0 to 1, uint8 `(H, W, 3)`."""
    place = heat.clamp(0, 1) * (len(_COLORS) - 1)
    lower = place.long().clamp_max(len(_COLORS) - 2)
    share = (place - lower)[..., None]
    color = _COLORS[lower] * (1 - share) + _COLORS[lower + 1] * share
    return (image * (1 - _SHARE) + color * _SHARE).round().to(torch.uint8)
