"""`PixelsToProbabilities`: preprocessing, network and softmax as one graph of tensor operations, which every format can hold.

An exported network that expects prepared images is fed with differently prepared ones sooner or later. Here the resizing is part
of the graph: two matrix products, whose matrices are computed from the image's height and width, and which round as Pillow does.
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from reslight.models import ResNet
from reslight.preprocess import Preprocess
from reslight.preprocess.resize import MAX_PIXELS, STRIP

_LARGEST_SIDE = 2**30
"""Of an image, in pixels; no image has as many, but without a bound torch's compiler fails."""


class PixelsToProbabilities(nn.Module):
    """Pixels as they were decoded -> the probability of each class.

    Args:
        net: A network with its `preprocess`, which is copied, as float32.
    """

    def __init__(self, net: ResNet) -> None:
        super().__init__()
        self.pixels = PixelsToInput(net.preprocess)
        self.net = copy.deepcopy(net).float().eval()
        self.temperature = float(net.temperature)
        self.multi_label = bool(net.multi_label)
        self.eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Classify images of one size.

        Args:
            pixels: uint8, with 16 bits uint16 `(N, H, W, C)`; any H and W.

        Returns:
            float32 `(N, classes)`, from 0 to 1.
        """
        logits: Tensor = self.net(self.pixels(pixels)) / self.temperature
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=1)


def sample_pixels(preprocess: Preprocess, count: int, height: int | None = None, width: int | None = None) -> Tensor:
    """Return noise that is the same on every call, uint8 or uint16 `(count, H, W, C)`; of the network's size if none is given."""
    tall, wide = height or preprocess.shape[0], width or preprocess.shape[1]
    generator = torch.Generator().manual_seed(count)
    shape = (count, tall, wide, preprocess.channels)
    if preprocess.bits == 8:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return torch.randint(0, 65536, shape, dtype=torch.int32, generator=generator).to(torch.uint16)


def sizes_that_vary() -> dict[int, Any]:
    """Return the dimensions of the pixels that torch.export must not take as fixed."""
    return {number: torch.export.Dim(name, min=1) for number, name in enumerate(("batch", "height", "width"))}


class PixelsToInput(nn.Module):
    """The same as `net.preprocess`, within 1/255 of the pixels' range, for images of any size."""

    scale: Tensor
    shift: Tensor
    fill: Tensor

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.preprocess = preprocess
        normalizer = preprocess.normalizer()
        deep = 257 if preprocess.bits == 16 else 1
        self.register_buffer("scale", normalizer.scale / deep)
        self.register_buffer("shift", normalizer.shift)
        self.register_buffer("fill", torch.tensor(preprocess.fill_values, dtype=torch.float32).view(-1, 1, 1) * deep)

    def forward(self, pixels: Tensor) -> Tensor:
        """`(N, H, W, C)` of whole numbers -> float32 `(N, C, *preprocess.shape)`."""
        _, height, width, _ = pixels.shape
        rows, columns = self._axes(height, width)
        shape, interpolation = self.preprocess.shape, self.preprocess.interpolation
        images = pixels.permute(0, 3, 1, 2).to(torch.float32)
        images = self._rounded(images @ rows_of(columns, shape[1], width, interpolation).T, last=False)
        images = self._rounded(rows_of(rows, shape[0], height, interpolation) @ images, last=True)
        if self.preprocess.crop == "letterbox":
            inside = _is_inside(rows, shape[0])[:, None] & _is_inside(columns, shape[1])
            images = torch.where(inside, images, self.fill)
        return images * self.scale + self.shift

    def _rounded(self, images: Tensor, *, last: bool) -> Tensor:
        """Round as Pillow does after each pass; images of 16 bits are rounded once, as torchvision's result is."""
        if self.preprocess.bits == 16:
            return (images + 0.5).floor().clamp(0, 65535) if last else images
        return (images + 0.5).floor().clamp(0, 255)

    def _axes(self, height: int, width: int) -> "tuple[Axis, Axis]":
        """Return what `reslight.preprocess.fit` and `center_to` do, in numbers that depend on the size of the image in the graph."""
        wanted = self.preprocess.shape
        short = self.preprocess.resize or min(wanted)
        tall, wide = (side * short // min(wanted) for side in wanted)
        # minimum, not clamp: with that, OpenVINO 2026.4 computes another size.
        largest = torch.full((), _LARGEST_SIDE, dtype=torch.int64)
        h, w = (torch.minimum(torch.full((), side, dtype=torch.int64), largest) for side in (height, width))
        top = left = torch.zeros((), dtype=torch.int64)
        if self.preprocess.crop == "squash":
            return _axis(top, h, torch.full((), tall), wanted[0]), _axis(left, w, torch.full((), wide), wanted[1])
        if self.preprocess.crop == "center":
            ratio, aspect = min(STRIP, max(2, MAX_PIXELS // max(1, short) ** 2)), wanted[1] / wanted[0]
            part_h = torch.minimum(h, (ratio * w.double() / aspect).long().clamp(min=1))
            part_w = torch.minimum(w, (ratio * h.double() * aspect).long().clamp(min=1))
            top, left, h, w = _quotient(h - part_h, 2), _quotient(w - part_w, 2), part_h, part_w
            if tall == wide:  # the quotient of whole numbers, rounded down: exact, as that of Python's floats
                size_h = torch.where(h <= w, torch.full_like(h, short), _quotient(short * h, w))
                size_w = torch.where(h <= w, _quotient(short * w, h), torch.full_like(w, short))
                return _axis(top, h, size_h, wanted[0]), _axis(left, w, size_w, wanted[1])
        ratios = h.double() / tall, w.double() / wide
        by = torch.maximum(*ratios) if self.preprocess.crop == "letterbox" else torch.minimum(*ratios)
        size_h, size_w = ((side.double() / by).round().long().clamp(min=1) for side in (h, w))
        return _axis(top, h, size_h, wanted[0]), _axis(left, w, size_w, wanted[1])


class Axis(NamedTuple):
    """How one side of an image is resized and cropped or padded; whole numbers, as int64 tensors without dimensions."""

    start: Tensor
    """First pixel that is used."""
    length: Tensor
    """Number of pixels that are used."""
    size: Tensor
    """Number of pixels that they are resized to."""
    first: Tensor
    """The resized pixel that comes first in the result; below 0 where the result is padded."""


def _axis(start: Tensor, length: Tensor, size: Tensor, wanted: int) -> Axis:
    """Return an axis whose center is cropped or padded; both are rounded as in `center_to`."""
    more = (size - wanted).clamp(min=0)
    cropped = (more.double() / 2).round().long()  # half of it, rounded to even
    return Axis(start, length, size, cropped - _quotient((wanted - size).clamp(min=0), 2))


def _quotient(numbers: Tensor, by: Tensor | int) -> Tensor:
    """Divide whole numbers that are not negative, rounding down: `//`, for which a format needs many more operations."""
    return torch.div(numbers, by, rounding_mode="trunc")


def _is_inside(axis: Axis, wanted: int) -> Tensor:
    """Return which pixels of the result are of the image, not added: bool `(wanted,)`."""
    index = torch.arange(wanted) + axis.first
    return (index >= 0) & (index < axis.size)


def rows_of(axis: Axis, wanted: int, side: int, interpolation: str) -> Tensor:
    """Return the matrix that resizes one side as Pillow does: float32 `(wanted, side)`, each row with the sum 1.

    Args:
        axis: What is resized, to which size, and which pixels of that are wanted.
        wanted: Number of pixels of the result.
        side: Number of pixels of the image.
        interpolation: "bilinear" or "bicubic".
    """
    stretch = axis.length.double() / axis.size
    index = torch.minimum((torch.arange(wanted) + axis.first).clamp(min=0), axis.size - 1)
    centers = axis.start + (index + 0.5) * stretch
    pixels = torch.arange(side)
    # float64 up to here: the distance of two numbers of thousands must be right in the fourth digit behind the point.
    distance = ((pixels + 0.5 - centers[:, None]) / stretch.clamp(min=1)).abs().to(torch.float32)
    if interpolation == "bilinear":
        weights = (1 - distance).clamp(min=0)
    else:  # a = -0.5, as Pillow
        near = (1.5 * distance - 2.5) * distance * distance + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        weights = torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))
    used = (pixels >= axis.start) & (pixels < axis.start + axis.length)
    weights = weights * used
    return weights / weights.sum(dim=1, keepdim=True)
