"""Blank a box of an image; random erasing (Zhong et al. 2017, arXiv:1708.04896).

The distribution is torchvision's: a share of the area, and a shape that is uniform on a logarithmic scale, drawn until a
box is smaller than the image in both directions.
"""

import math

import torch
from torch import Tensor

from reslight.data.rng import NEXT_DRAW, Draw, uniform

SCALE = (0.02, 0.33)
"""Least and greatest share of the image's area."""
RATIO = (0.3, 3.3)
"""Least and greatest height divided by width."""
ATTEMPTS = 10
"""Random boxes that are tried before an image is left unchanged."""


def random_erase(images: Tensor, indices: Tensor, *, probability: float, fill: tuple[int, ...], seed: int, epoch: int) -> Tensor:
    """Blank a random box of some images.

    Args:
        images: `(N, C, H, W)`; not changed.
        indices: int64 `(N,)` on the same device: each image's number in its split.
        probability: Probability that a box of an image is blanked.
        fill: Value of the box, one for all channels or one for each.
        seed: Seed of the run.
        epoch: Epoch, counted from 0.

    Returns:
        `(N, C, H, W)`, a copy.
    """
    is_erased = uniform(seed, epoch, indices, Draw.ERASE) < probability
    top, left, height, width = random_boxes(indices, images.shape[-2], images.shape[-1], seed, epoch)
    return blank(images, top, left, height * is_erased, width, fill)


def random_boxes(indices: Tensor, height: int, width: int, seed: int, epoch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw a box in each image of `height` x `width` pixels.

    Returns:
        int64 `(N,)` each: first row, first column, rows and columns; 0 rows if all attempts were too large.
    """
    attempts = indices.unsqueeze(1) + torch.arange(ATTEMPTS, device=indices.device) * NEXT_DRAW
    # float64, so that the nearest whole number is the same on every device
    draws = (Draw.ERASE_AREA, Draw.ERASE_RATIO, Draw.ERASE_Y, Draw.ERASE_X)
    u_area, u_ratio, u_y, u_x = uniform(seed, epoch, attempts, draws).double()
    area = (u_area * (SCALE[1] - SCALE[0]) + SCALE[0]) * (height * width)
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    ratio = (u_ratio * (high - low) + low).exp()
    rows, columns = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (rows < height) & (columns < width)
    top, left = (u_y * (height - rows + 1)).long(), (u_x * (width - columns + 1)).long()
    # argmax finds the first attempt that fits; without one, the box gets 0 rows.
    first = fits.byte().argmax(1, keepdim=True)
    top, left, rows, columns = (numbers.gather(1, first).squeeze(1) for numbers in (top, left, rows * fits, columns))
    return top, left, rows, columns


def blank(images: Tensor, top: Tensor, left: Tensor, height: Tensor | int, width: Tensor | int, fill: tuple[int, ...]) -> Tensor:
    """Fill a box of each image with one value.

    Args:
        images: `(N, C, H, W)`.
        top: int64 `(N,)`: first row of the box, which may extend over the edges.
        left: int64 `(N,)`: first column.
        height: Rows, of all boxes or int64 `(N,)`; 0 for no box.
        width: Columns, of all boxes or int64 `(N,)`.
        fill: The value, one for all channels or one for each.

    Returns:
        `(N, C, H, W)`, a copy.
    """
    is_inside = inside(images.shape[-2], images.shape[-1], top, left, height, width)
    if len(fill) == 1:
        return images.masked_fill(is_inside, fill[0])
    values = torch.tensor(fill, dtype=images.dtype, device=images.device).view(-1, 1, 1)
    return torch.where(is_inside, values, images)


def inside(rows: int, columns: int, top: Tensor, left: Tensor, height: Tensor | int, width: Tensor | int) -> Tensor:
    """Return a mask of the pixels inside a box of each image.

    Args:
        rows: Height of the images.
        columns: Width of the images.
        top: As in `blank`.
        left: As in `blank`.
        height: As in `blank`.
        width: As in `blank`.

    Returns:
        bool `(N, 1, rows, columns)`.
    """
    y = torch.arange(rows, device=top.device) - top.unsqueeze(1)
    x = torch.arange(columns, device=left.device) - left.unsqueeze(1)
    in_rows = (y >= 0) & (y < (height.unsqueeze(1) if isinstance(height, Tensor) else height))
    in_columns = (x >= 0) & (x < (width.unsqueeze(1) if isinstance(width, Tensor) else width))
    return in_rows.view(-1, 1, rows, 1) & in_columns.view(-1, 1, 1, columns)
