"""Preprocess an image for a network. The settings belong to the weights, not to the dataset.

    image (PIL or uint8) -> resize -> center crop, or padding -> (image / 255 - mean) / std

Data modules resize with their own code and use only the last step, on batches and on the device, through `normalizer`. Both
ways use the same arithmetic, so their results are equal to the bit. torchvision and Pillow are imported at the first image,
so that this module needs only torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self, get_args

import torch
from torch import Tensor

from reslight.messages import UsageError, check_keys, counted, visible
from reslight.plain import plain
from reslight.preprocess.normalize import Normalizer
from reslight.preprocess.resize import Fit, Fitting, Interpolation, Size, center_to, fit, resize_tensor, shape_of

if TYPE_CHECKING:
    from PIL.Image import Image


_MAX_SIZE = 4096
"""Pixels. A config.json from the internet must not cause an allocation of gigabytes."""
_ADDED = {"crop": "center", "fill": None, "bits": 8}
"""Fields that are saved only where they have other values: weights without them stay the same to the byte, and older ones are read."""
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")


@dataclass(frozen=True)
class Preprocess:
    """The preprocessing that a network needs."""

    size: Size
    """Height and width of the network's input, in pixels: one number for a square, or [height, width]."""
    mean: tuple[float, ...]
    """Mean to subtract, on the scale 0 to 1: one number for each channel, or one for each pixel in (C, H, W) order. As many channels are
    read of each image."""
    std: tuple[float, ...]
    """Standard deviation to divide by, on the scale 0 to 1, one number for each channel."""
    resize: int | None = None
    """Length of the short side before the center crop to `size`, in pixels; `size` if null."""
    interpolation: Interpolation = "bilinear"
    """How to resize, always with antialiasing."""
    crop: Fitting = "center"
    """center: the image is resized until it covers the size, and its center is cropped; squash: it is resized to the exact size, which
    changes its proportions; letterbox: it is resized until it fits into the size, and padded."""
    fill: tuple[int, ...] | None = None
    """Value of the pixels that letterbox adds, 0 to 255, one for each channel; the mean if null."""
    bits: int = 8
    """Bits of a value, 8 or 16: 16 keeps images of 16 bits as they are, in twice the memory; 8 scales them to 8."""

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            UsageError: a field that is out of range or does not fit another.
        """
        self._check_size()
        if self.resize is not None and (not _is_int(self.resize) or not min(self.shape) <= self.resize <= 2 * _MAX_SIZE):
            raise UsageError(
                f"preprocess.resize is {_short(self.resize)}: it must be null or a whole number from {min(self.shape)} to {2 * _MAX_SIZE}."
            )
        for name, allowed in (("interpolation", get_args(Interpolation)), ("crop", get_args(Fitting)), ("bits", (8, 16))):
            if (value := getattr(self, name)) not in allowed or isinstance(value, float | bool):
                raise UsageError(f"preprocess.{name} is {_short(value)}: it must be {' or '.join(map(str, allowed))}.")
        self._check_statistics()
        values = self.fill if isinstance(self.fill, tuple) else ()
        if self.fill is not None and (len(values) != self.channels or not all(_is_int(value) and 0 <= value <= 255 for value in values)):
            raise UsageError(
                f"preprocess.fill is {_short(self.fill)}: it must be null or {counted(self.channels, 'whole number')} from 0 to 255, "
                "one for each channel."
            )

    def _check_size(self) -> None:
        sides = self.size if isinstance(self.size, tuple) else (self.size,)
        if not 1 <= len(sides) <= 2 or not all(_is_int(side) and 1 <= side <= _MAX_SIZE for side in sides):
            raise UsageError(
                f"preprocess.size is {_short(self.size)}: it must be a whole number from 1 to {_MAX_SIZE}, or two, height and width."
            )
        if len(set(sides)) == 1:  # a square has one form
            object.__setattr__(self, "size", sides[0])

    def _check_statistics(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not all(_is_finite(value) for value in values):
                raise UsageError(f"preprocess.{name} is {_short(values)}: it must be a tuple of finite numbers.")
        if not self.std or min(self.std) <= 0:
            raise UsageError(f"preprocess.std is {_short(self.std)}: it must have one number above 0 for each channel.")
        channels = len(self.std)
        if len(self.mean) not in (channels, channels * math.prod(self.shape)):
            raise UsageError(
                f"preprocess.mean has {len(self.mean)} numbers: it must have {channels}, as std, "
                f"or {channels * math.prod(self.shape)}, one for each pixel."
            )

    @property
    def channels(self) -> int:
        """Number of channels: 1 for gray, 3 for RGB."""
        return len(self.std)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the network's input, in pixels."""
        return shape_of(self.size)

    @property
    def fill_values(self) -> tuple[int, ...]:
        """Value of added pixels, 0 to 255, for each channel."""
        if self.fill is not None:
            return self.fill
        each = len(self.mean) // self.channels
        means = (math.fsum(self.mean[start : start + each]) / each for start in range(0, len(self.mean), each))
        return tuple(min(255, max(0, round(255 * mean))) for mean in means)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON types."""
        fields: dict[str, Any] = plain(self)
        return {key: value for key, value in fields.items() if key not in _ADDED or value != _ADDED[key]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the `Preprocess` of a dict from `to_dict`.

        Raises:
            UsageError: an unknown or missing key, or a value that is out of range.
        """
        names = [field.name for field in fields(cls)]
        check_keys(data, names, [name for name in names if name not in _ADDED], "preprocess")
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        return cls(**values)

    def __call__(self, image: "Image | Tensor") -> Tensor:
        """Preprocess an image as in evaluation.

        Args:
            image: A Pillow image of any mode, or a uint8 tensor `(C, H, W)` or `(N, C, H, W)`; with 16 `bits` it may be uint16.

        Returns:
            float32, `(C, *shape)` or `(N, C, *shape)`.

        Raises:
            TypeError: `image` is not a Pillow image or a tensor.
            UsageError: a tensor of another dtype or shape.
        """
        return self.normalize(self.pixels(image))

    def pixels(self, image: "Image | Tensor") -> Tensor:
        """Resize an image and crop its center, or pad it: all that happens before the values are normalized.

        Args:
            image: As of `__call__`.

        Returns:
            uint8, or uint16 for an image of 16 bits: `(C, *shape)` or `(N, C, *shape)`.

        Raises:
            TypeError: `image` is not a Pillow image or a tensor.
            UsageError: a tensor of another dtype or shape.
        """
        if isinstance(image, Tensor):
            self.check_tensor(image)
            resized = self._resize_tensor(image)
        else:
            resized = self._resize_pillow(image)
        return center_to(resized, self.shape, self.fill_values)

    def normalize(
        self,
        images: Tensor,
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> Tensor:
        """Return `(images / 255 - mean) / std`; see `Normalizer`. For many batches, create a `normalizer` once."""
        return self.normalizer(images.device, dtype)(images, memory_format)

    def normalizer(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> "Normalizer":
        """Return a function that normalizes batches, with its constants on their device.

        Args:
            device: Device of the batches.
            dtype: Floating-point dtype of the result.
        """
        # bfloat16 has 8 bits of precision: rounded constants would shift every image.
        compute = torch.float64 if dtype == torch.float64 else torch.float32
        std = torch.tensor(self.std, dtype=torch.float64).view(-1, 1, 1)
        mean = torch.tensor(self.mean, dtype=torch.float64)
        mean = mean.view(-1, 1, 1) if len(self.mean) == self.channels else mean.view(-1, *self.shape)
        scale, shift = (1 / (255 * std)).to(compute), (-mean / std).to(compute)
        return Normalizer(scale.to(device), shift.to(device), dtype)

    def check_tensor(self, image: Tensor) -> None:
        """Check that a tensor holds an image, or several, that can be preprocessed.

        Raises:
            UsageError: another dtype or shape.
        """
        dtypes = (torch.uint8,) if self.bits == 8 else (torch.uint8, torch.uint16)
        if image.dtype not in dtypes or image.ndim not in (3, 4) or image.shape[-3] != self.channels:
            raise UsageError(
                f"image is {image.dtype} {tuple(image.shape)}: it must be {' or '.join(map(str, dtypes))} ({self.channels}, H, W) or "
                f"(N, {self.channels}, H, W), with values from 0 to {255 if self.bits == 8 else 65535}."
            )

    def _fit(self, height: int, width: int) -> "Fit":
        return fit(height, width, self.shape, self.resize, self.crop)

    def _resize_tensor(self, image: Tensor) -> Tensor:
        part, size = self._fit(*image.shape[-2:])
        top, left, height, width = part
        return resize_tensor(image[..., top : top + height, left : left + width], size, self.interpolation)

    def _resize_pillow(self, image: "Image") -> Tensor:
        """Resize with Pillow, as the pipelines of published accuracies do, and return uint8 or uint16 `(C, H, W)`."""
        from PIL import Image  # comes with torchvision, which itself takes as long to import as torch

        if not isinstance(image, Image.Image):
            raise TypeError(f"image is a {type(image).__name__}: it must be a Pillow image or a uint8 tensor.")
        modes = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
        mode = modes.get(self.channels)
        if mode is None or (self.channels in (2, 4) and image.mode != mode):
            raise UsageError(
                f"image is a Pillow image of mode {image.mode}: it cannot be converted to {counted(self.channels, 'channel')}. "
                "Give a uint8 tensor."
            )
        if self.channels in (2, 4):  # Pillow would weight the other channels with the last one
            return self._resize_tensor(_pixels(image))
        if image.mode in _DEEP_MODES:
            return self._resize_tensor(self._from_deep(image))
        if image.mode != mode:  # no copies that are not needed: an image may have hundreds of megabytes
            image = image.convert(mode)
        part, size = self._fit(image.height, image.width)
        top, left, height, width = part
        if (height, width) != (image.height, image.width):
            image = image.crop((left, top, left + width, top + height))
        if size != (height, width):
            image = image.resize(size[::-1], Image.Resampling[self.interpolation.upper()])
        return _pixels(image)

    def _from_deep(self, image: "Image") -> Tensor:
        """Return the values of a gray image of 16 bits; Pillow would clip them at 255."""
        values = _pixels(image, "float64")
        if values.min() < 0 or values.max() > 65535 or image.mode == "F":
            raise UsageError(
                f"image is a Pillow image of mode {image.mode}: its values must be whole numbers from 0 to 65535. Give a uint8 tensor."
            )
        scaled = values.round() if self.bits == 16 else (values / 257).round()
        return scaled.to(torch.int32).to(torch.uint16 if self.bits == 16 else torch.uint8).expand(self.channels, -1, -1)


def _pixels(image: "Image", dtype: str = "uint8") -> Tensor:
    """Return the values of a Pillow image, `(C, H, W)`."""
    import numpy as np

    values = torch.from_numpy(np.array(image, dtype=dtype))  # a copy, which torch may write to
    return values.movedim(-1, 0).contiguous() if values.ndim == 3 else values[None]


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: object) -> str:
    return visible(repr(value), 80)
