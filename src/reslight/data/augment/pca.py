"""The paper's color augmentation: noise along the principal components of RGB values.

As in AlexNet (Krizhevsky et al. 2012, section 4.1), the same `sum_k alpha_k * lambda_k * p_k` is added to each pixel of an
image, with the eigenvectors p_k and eigenvalues lambda_k of the covariance of ImageNet's pixels, and normal alpha_k.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from reslight.data.rng import Draw, uniform

EIGENVALUES = (0.2175, 0.0188, 0.0045)
"""Eigenvalues of ImageNet's RGB values on the scale 0 to 1, as in fb.resnet.torch."""
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
"""A row for each of R, G and B, a column for each eigenvalue."""

_ALPHAS = (Draw.PCA_1, Draw.PCA_2, Draw.PCA_3)


def normal(seed: int, epoch: int, index: Tensor, draw: int | Sequence[int]) -> Tensor:
    """Return float64 numbers of the standard normal distribution, from -5.4 to 5.4; arguments and shapes as in `rng.uniform`."""
    # The middle of each step of the uniform numbers, which is never 0, whose quantile is infinite
    numbers: Tensor = torch.special.ndtri(uniform(seed, epoch, index, draw).double() + 2.0**-25)
    return numbers


def pca_noise(images: Tensor, indices: Tensor, *, std: float, seed: int, epoch: int) -> Tensor:
    """Shift the color of each image.

    Args:
        images: uint8 `(N, 3, H, W)`, RGB; not changed.
        indices: int64 `(N,)` on the same device: each image's number in its split.
        std: Std of each alpha; the paper uses 0.1.
        seed: Seed of the run.
        epoch: Epoch, counted from 0.

    Returns:
        uint8 `(N, 3, H, W)`, rounded and clipped.
    """
    alphas = normal(seed, epoch, indices, _ALPHAS)
    channels = []
    for row in EIGENVECTORS:  # the constants are Python numbers: a tensor of them would make a GPU wait for the copy
        terms = [alpha * (255 * std * value * part) for alpha, value, part in zip(alphas, EIGENVALUES, row, strict=True)]
        channels.append(terms[0] + terms[1] + terms[2])
    # Pixels are whole numbers, so rounding the shift rounds the sum; shifts beyond +-255 have no further effect.
    shifts = torch.stack(channels, 1).round_().clamp_(-255, 255).to(torch.int16)
    return images.to(torch.int16).add_(shifts.view(-1, 3, 1, 1)).clamp_(0, 255).to(torch.uint8)
