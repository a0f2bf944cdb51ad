"""Mean and std of images, from exact counts, so that the result does not depend on the order of the images."""

import torch
from torch import Tensor

_ROWS = 4096  # images at a time: a float copy of all of them would take gigabytes, and sums this short are exact in float32


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the std of each channel over all pixels, on the scale 0 to 1.

    Args:
        images: uint8 `(N, C, H, W)` on the CPU.
    """
    channels = images.shape[1]
    counts = torch.stack([torch.bincount(images[:, channel].flatten(), minlength=256) for channel in range(channels)]).double()
    values = torch.arange(256, dtype=torch.float64) / 255
    shares = counts / counts.sum(dim=1, keepdim=True)
    mean = shares @ values
    variance = (shares * (values - mean.unsqueeze(1)).square()).sum(dim=1)
    return tuple(mean.tolist()), tuple(variance.sqrt().tolist())


def pixel_mean(images: Tensor) -> tuple[float, ...]:
    """Return the mean image, on the scale 0 to 1, in (C, H, W) order (the paper's section 4.2 subtracts it).

    Args:
        images: uint8 `(N, C, H, W)` on the CPU.
    """
    total = torch.zeros(images[0].numel(), dtype=torch.float64)
    for rows in torch.split(images.flatten(1), _ROWS):
        total += rows.float().sum(dim=0).double()
    return tuple((total / (255 * len(images))).tolist())
