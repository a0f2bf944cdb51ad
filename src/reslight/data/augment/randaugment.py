"""RandAugment and TrivialAugment: random operations for each image, drawn from a table.

    RandAugment       Cubuk et al. 2019, arXiv:1909.13719
    TrivialAugment    Mueller and Hutter 2021, arXiv:2103.10158, the wide space

Operations, magnitudes, kernels and every resulting pixel are torchvision's. But nearly every image of a batch has its own
operation, level and sign, and a kernel call for each would cost more than a small network. So an operation that moves
pixels is stored as the source of each pixel, and an operation on single values as a table of values; torchvision's kernel
computes both once, and one gather applies them to all images of a batch. Other operations run once for all images with the
same operation, level and sign.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import groupby
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from reslight.data.augment.pca import normal
from reslight.data.rng import NEXT_DRAW, Draw, integers

Space = Literal["randaugment", "trivialaugment"]
Fill = tuple[int, ...]

LEVELS = 31
"""Magnitudes of each operation, level 0 the weakest."""


class Op(NamedTuple):
    """An operation on images."""

    kernel: Callable[[Tensor, float, Fill], Tensor]
    """uint8 `(N, C, H, W)`, signed magnitude and fill -> uint8 `(N, C, H, W)`."""
    changes: Literal["places", "values", "images"]
    """`places`: moves pixels; `values`: maps each value to another; `images`: neither."""
    is_signed: bool = False
    """Whether the magnitude is negative for half of the images."""


class Range(NamedTuple):
    """Magnitudes of an operation, evenly spaced."""

    weakest: float
    strongest: float
    of: Literal["number", "height", "width"] = "number"
    """What the magnitudes are multiplied by: 1, or the image's height or width."""


class Step(NamedTuple):
    """An operation with its magnitude, for one image."""

    name: str
    magnitude: float

    @property
    def group(self) -> object:
        """A key that is equal for images that one call can process."""
        changes = OPS[self.name].changes
        return self if changes == "images" else changes


def _shear(images: Tensor, x: float, y: float, fill: Fill) -> Tensor:
    shear = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    sheared: Tensor = tvf.affine_image(images, 0.0, [0, 0], 1.0, shear, fill=list(fill), center=[0, 0])
    return sheared


def _translate(images: Tensor, x: float, y: float, fill: Fill) -> Tensor:
    moved: Tensor = tvf.affine_image(images, 0.0, [int(x), int(y)], 1.0, [0.0, 0.0], fill=list(fill))
    return moved


def _contrast(images: Tensor, factor: float) -> Tensor:
    # As in torchvision but for the mean: its float sum over more than 256 x 256 pixels depends on the batch and the threads.
    gray = tvf.rgb_to_grayscale_image(images)
    mean = gray.sum((1, 2, 3), dtype=torch.int64, keepdim=True) / gray[0].numel()
    return images.mul(factor).add_(mean, alpha=1.0 - factor).clamp_(0, 255).to(torch.uint8)


# The order is part of every published result: an operation is drawn by its number.
OPS: Mapping[str, Op] = MappingProxyType(
    {
        "Identity": Op(lambda images, by, fill: images, "images"),
        "ShearX": Op(lambda images, by, fill: _shear(images, by, 0, fill), "places", is_signed=True),
        "ShearY": Op(lambda images, by, fill: _shear(images, 0, by, fill), "places", is_signed=True),
        "TranslateX": Op(lambda images, by, fill: _translate(images, by, 0, fill), "places", is_signed=True),
        "TranslateY": Op(lambda images, by, fill: _translate(images, 0, by, fill), "places", is_signed=True),
        "Rotate": Op(lambda images, by, fill: tvf.rotate_image(images, by, fill=list(fill)), "places", is_signed=True),
        "Brightness": Op(lambda images, by, fill: tvf.adjust_brightness_image(images, 1 + by), "values", is_signed=True),
        "Posterize": Op(lambda images, by, fill: tvf.posterize_image(images, int(by)), "values"),
        "Solarize": Op(lambda images, by, fill: tvf.solarize_image(images, 255 * by), "values"),
        "Color": Op(lambda images, by, fill: tvf.adjust_saturation_image(images, 1 + by), "images", is_signed=True),
        "Contrast": Op(lambda images, by, fill: _contrast(images, 1 + by), "images", is_signed=True),
        "Sharpness": Op(lambda images, by, fill: tvf.adjust_sharpness_image(images, 1 + by), "images", is_signed=True),
        "AutoContrast": Op(lambda images, by, fill: tvf.autocontrast_image(images), "images"),
        "Equalize": Op(lambda images, by, fill: tvf.equalize_image(images), "images"),
    }
)

# Operations that are missing here have no magnitude.
SPACES: Mapping[Space, Mapping[str, Range]] = MappingProxyType(
    {
        "randaugment": {
            "ShearX": Range(0.0, 0.3),
            "ShearY": Range(0.0, 0.3),
            "TranslateX": Range(0.0, 150.0 / 331.0, of="width"),
            "TranslateY": Range(0.0, 150.0 / 331.0, of="height"),
            "Rotate": Range(0.0, 30.0),
            "Brightness": Range(0.0, 0.9),
            "Posterize": Range(8, 4),
            "Solarize": Range(1.0, 0.0),
            "Color": Range(0.0, 0.9),
            "Contrast": Range(0.0, 0.9),
            "Sharpness": Range(0.0, 0.9),
        },
        "trivialaugment": {
            "ShearX": Range(0.0, 0.99),
            "ShearY": Range(0.0, 0.99),
            "TranslateX": Range(0.0, 32.0),
            "TranslateY": Range(0.0, 32.0),
            "Rotate": Range(0.0, 135.0),
            "Brightness": Range(0.0, 0.99),
            "Posterize": Range(8, 2),
            "Solarize": Range(1.0, 0.0),
            "Color": Range(0.0, 0.99),
            "Contrast": Range(0.0, 0.99),
            "Sharpness": Range(0.0, 0.99),
        },
    }
)


def randaugment(
    images: Tensor, indices: Tensor, *, ops: int, magnitude: float, magnitude_std: float, fill: Fill, seed: int, epoch: int
) -> Tensor:
    """Apply several random operations to each image, one after the other.

    Args:
        images: uint8 `(N, C, H, W)`, C 1 or 3; not changed.
        indices: int64 `(N,)` on the same device: each image's number in its split.
        ops: Operations for each image.
        magnitude: Level of all operations, 0 to 30, rounded.
        magnitude_std: Std of the level, which is drawn for each operation and clipped to 0 to 30.
        fill: Value of pixels from outside the image, one for all channels or one for each.
        seed: Seed of the run.
        epoch: Epoch, counted from 0.

    Returns:
        uint8 `(N, C, H, W)`.
    """
    numbers = indices + torch.arange(ops, device=indices.device).unsqueeze(1) * NEXT_DRAW
    op, sign = integers(seed, epoch, numbers, (Draw.POLICY_OP, Draw.POLICY_SIGN), (len(OPS), 2))
    if magnitude_std:
        level = magnitude + magnitude_std * normal(seed, epoch, numbers, Draw.POLICY_LEVEL)
        return apply(images, codes(op, level.round().clamp(0, LEVELS - 1).long(), sign), "randaugment", fill)
    return apply(images, codes(op, round(magnitude), sign), "randaugment", fill)


def trivialaugment(images: Tensor, indices: Tensor, *, fill: Fill, seed: int, epoch: int) -> Tensor:
    """Apply one random operation at a random level to each image; arguments as in `randaugment`."""
    draws = (Draw.POLICY_OP, Draw.POLICY_LEVEL, Draw.POLICY_SIGN)
    op, level, sign = integers(seed, epoch, indices.unsqueeze(0), draws, (len(OPS), LEVELS, 2))
    return apply(images, codes(op, level, sign), "trivialaugment", fill)


def codes(op: Tensor, level: Tensor | int, sign: Tensor) -> Tensor:
    """Return one number for an operation (its number in `OPS`), a level, and a sign (1 for a negative magnitude)."""
    return (op * LEVELS + level) * 2 + sign


def apply(images: Tensor, chosen: Tensor, space: Space, fill: Fill) -> Tensor:
    """Apply operations to images.

    Args:
        images: uint8 `(N, C, H, W)`; not changed.
        chosen: int64 `(P, N)`: for each of P passes the `codes` of each image's operation.
        space: The table of magnitudes.
        fill: Value of pixels from outside the image, one for all channels or one for each.

    Returns:
        uint8 `(N, C, H, W)`.
    """
    height, width = images.shape[-2:]
    orders = chosen.argsort(stable=True)
    # The host waits for the device here, once: the kernels to launch depend on the random numbers.
    for order, row in zip(orders, chosen.gather(1, orders).tolist(), strict=True):
        images, before = torch.empty_like(images), images.index_select(0, order)
        done = 0
        for _, group in groupby([_step(code, space, height, width) for code in row], key=lambda step: step.group):
            steps = list(group)
            part = before[done : done + len(steps)]
            images.index_copy_(0, order[done : done + len(steps)], _run(part, steps, fill))
            done += len(steps)
    return images


def _run(images: Tensor, steps: list[Step], fill: Fill) -> Tensor:
    """Apply steps of the same group, one to each image."""
    op, device = OPS[steps[0].name], images.device
    if op.changes == "values":
        values = torch.stack([_values(step, device) for step in steps])
        return values.gather(1, images.flatten(1).long()).view(images.shape)
    if op.changes == "places":
        places = torch.stack([_places(step, *images.shape[-2:], device) for step in steps])
        outside = torch.tensor(fill, dtype=images.dtype, device=device).view(1, -1, 1).expand(*images.shape[:2], 1)
        pixels = torch.cat((images.flatten(2), outside), 2)
        return pixels.gather(2, places.long().unsqueeze(1).expand(-1, images.shape[1], -1)).view(images.shape)
    return op.kernel(images, steps[0].magnitude, fill)


@lru_cache(maxsize=2048)
def _step(code: int, space: Space, height: int, width: int) -> Step:
    op, level, sign = code // (2 * LEVELS), code // 2 % LEVELS, code % 2
    name = list(OPS)[op]
    if name not in SPACES[space]:
        return Step(name, 0.0)
    weakest, strongest, of = SPACES[space][name]
    side = {"number": 1, "height": height, "width": width}[of]
    magnitude = float(torch.linspace(weakest, strongest * side, LEVELS)[level])
    if name == "Posterize":
        magnitude = round(magnitude)
    return Step(name, -magnitude if sign and OPS[name].is_signed else magnitude)


@lru_cache(maxsize=1024)  # all entries of a space take 60 MB at 224 x 224 pixels
def _places(step: Step, height: int, width: int, device: torch.device) -> Tensor:
    """Return the source of each pixel: int32 `(H * W,)`, with H * W for outside the image."""
    numbers = torch.arange(height * width, dtype=torch.float32).view(1, 1, height, width)
    return OPS[step.name].kernel(numbers, step.magnitude, (height * width,)).flatten().to(device, torch.int32)


@lru_cache(maxsize=1024)
def _values(step: Step, device: torch.device) -> Tensor:
    """Return the new value of each value: uint8 `(256,)`."""
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    return OPS[step.name].kernel(values, step.magnitude, (0,)).flatten().to(device)
