"""Preprocess an image for a network. The settings belong to the weights, not to the dataset.

    image (PIL or uint8) -> resize the short side -> center crop -> (image / 255 - mean) / std

Data modules resize with their own code and use only the last step, on batches and on the device, through `normalizer`. Both
ways use the same arithmetic, so their results are equal to the bit. torchvision and Pillow are imported at the first image,
so that this module needs only torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from reslight.messages import MissingPackageError, UsageError, check_keys, counted, visible
from reslight.plain import plain

if TYPE_CHECKING:
    from PIL.Image import Image

Interpolation = Literal["bilinear", "bicubic"]

_STRIP = 32
"""Largest ratio of an image's sides; of longer images only the middle is resized."""
_MAX_PIXELS = 2**26
"""Pixels of a resized image that are wanted at most, before its center is cropped."""
_MAX_SIZE = 4096
"""Pixels. A config.json from the internet must not cause an allocation of gigabytes."""


@dataclass(frozen=True)
class Preprocess:
    """The preprocessing that a network needs."""

    size: int
    """Height and width of the network's input, in pixels."""
    mean: tuple[float, ...]
    """Mean to subtract, on the scale 0 to 1: one number for each channel, or one for each pixel in (C, H, W) order."""
    std: tuple[float, ...]
    """Standard deviation to divide by, on the scale 0 to 1, one number for each channel."""
    resize: int | None = None
    """Length of the short side before the center crop to `size`, in pixels; `size` if null."""
    interpolation: Interpolation = "bilinear"
    """How to resize, always with antialiasing."""

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            UsageError: a field that is out of range or does not fit another.
        """
        if not _is_int(self.size) or not 1 <= self.size <= _MAX_SIZE:
            raise UsageError(f"preprocess.size is {_short(self.size)}: it must be a whole number from 1 to {_MAX_SIZE}.")
        if self.resize is not None and (not _is_int(self.resize) or not self.size <= self.resize <= 2 * _MAX_SIZE):
            raise UsageError(
                f"preprocess.resize is {_short(self.resize)}: it must be null or a whole number from {self.size} to {2 * _MAX_SIZE}."
            )
        if self.interpolation not in get_args(Interpolation):
            raise UsageError(
                f"preprocess.interpolation is {_short(self.interpolation)}: it must be {' or '.join(get_args(Interpolation))}."
            )
        self._check_statistics()

    def _check_statistics(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not all(_is_finite(value) for value in values):
                raise UsageError(f"preprocess.{name} is {_short(values)}: it must be a tuple of finite numbers.")
        if not self.std or min(self.std) <= 0:
            raise UsageError(f"preprocess.std is {_short(self.std)}: it must have one number above 0 for each channel.")
        channels = len(self.std)
        if len(self.mean) not in (channels, channels * self.size**2):
            raise UsageError(
                f"preprocess.mean has {len(self.mean)} numbers: it must have {channels}, as std, "
                f"or {channels * self.size**2}, one for each pixel."
            )

    @property
    def channels(self) -> int:
        """Number of channels: 1 for gray, 3 for RGB."""
        return len(self.std)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON types."""
        fields: dict[str, Any] = plain(self)
        return fields

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the `Preprocess` of a dict from `to_dict`.

        Raises:
            UsageError: an unknown or missing key, or a value that is out of range.
        """
        names = [field.name for field in fields(cls)]
        check_keys(data, names, names, "preprocess")
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        return cls(**values)

    def __call__(self, image: "Image | Tensor") -> Tensor:
        """Preprocess an image as in evaluation.

        Args:
            image: A Pillow image of any mode, or a uint8 tensor `(C, H, W)` or `(N, C, H, W)`.

        Returns:
            float32 `(C, size, size)` or `(N, C, size, size)`.

        Raises:
            TypeError: `image` is not a Pillow image or a tensor.
            UsageError: a tensor of another dtype or shape.
        """
        if isinstance(image, Tensor):
            self._check_tensor(image)
            top, left, height, width = middle(image.shape[-2], image.shape[-1], self._short_side)
            part = image[..., top : top + height, left : left + width]
            return self.normalize(self._center_crop(self._resize_tensor(part)))
        return self.normalize(self._center_crop(self._pil_to_tensor(image)))

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
        mean = mean.view(-1, 1, 1) if len(self.mean) == self.channels else mean.view(-1, self.size, self.size)
        scale, shift = (1 / (255 * std)).to(compute), (-mean / std).to(compute)
        return Normalizer(scale.to(device), shift.to(device), dtype)

    def _check_tensor(self, image: Tensor) -> None:
        if image.dtype != torch.uint8 or image.ndim not in (3, 4) or image.shape[-3] != self.channels:
            raise UsageError(
                f"image is {image.dtype} {tuple(image.shape)}: it must be torch.uint8 ({self.channels}, H, W) or "
                f"(N, {self.channels}, H, W), with values from 0 to 255."
            )

    @property
    def _short_side(self) -> int:
        return self.resize or self.size

    def _needs_resize(self, height: int, width: int) -> bool:
        return min(height, width) != self._short_side

    def _resize_tensor(self, image: Tensor) -> Tensor:
        if not self._needs_resize(*image.shape[-2:]):
            return image
        tvf, modes_of_resizing = _torchvision()
        how = modes_of_resizing(self.interpolation)
        resized: Tensor = tvf.resize_image(image, [self._short_side], how, antialias=True)
        return resized

    def _pil_to_tensor(self, image: "Image") -> Tensor:
        """Resize with Pillow, as the pipelines of published accuracies do, and return uint8 `(C, H, W)`."""
        tvf, modes_of_resizing = _torchvision()
        from PIL import Image  # comes with torchvision

        if not isinstance(image, Image.Image):
            raise TypeError(f"image is a {type(image).__name__}: it must be a Pillow image or a uint8 tensor.")
        modes = {1: "L", 3: "RGB"}
        if self.channels not in modes:
            raise UsageError(
                f"image is a Pillow image: it cannot be converted to {counted(self.channels, 'channel')}. Give a uint8 tensor."
            )
        if image.mode != modes[self.channels]:  # no copies that are not needed: an image may have hundreds of megabytes
            image = image.convert(modes[self.channels])
        top, left, height, width = middle(image.height, image.width, self._short_side)
        if (height, width) != (image.height, image.width):
            image = image.crop((left, top, left + width, top + height))
        if self._needs_resize(height, width):
            image = tvf.resize(image, [self._short_side], modes_of_resizing(self.interpolation))
        tensor: Tensor = tvf.pil_to_tensor(image)
        return tensor

    def _center_crop(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        # Rounded as in torchvision, whose published accuracies depend on it.
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return image[..., top : top + self.size, left : left + self.size]


def _torchvision() -> tuple[Any, Any]:
    """Return torchvision's functions on images, and its kinds of interpolation.

    Raises:
        MissingPackageError: torchvision is not installed.
    """
    try:
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2 import functional as tvf
    except ImportError as error:
        raise MissingPackageError("torchvision is not installed: it resizes images. Run pip install torchvision.") from error
    return tvf, InterpolationMode


def middle(height: int, width: int, short_side: int = 0) -> tuple[int, int, int, int]:
    """Return the part of an image that is resized, as top, left, height and width: the whole image unless it is very long.

    An image of 1 x 6,000 pixels would be resized to 224 x 1,344,000, and the center crop would keep 224 x 224 of that.

    Args:
        height: Of the image.
        width: Of the image.
        short_side: What the short side is resized to; where it is above 1,448 pixels, 32 times as long would be gigabytes.
    """
    ratio = min(_STRIP, max(2, _MAX_PIXELS // max(1, short_side) ** 2))
    longest = ratio * min(height, width)
    tall, wide = min(height, longest), min(width, longest)
    return (height - tall) // 2, (width - wide) // 2, tall, wide


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Compute `images * scale + shift`, which is `(images / 255 - mean) / std`."""

    scale: Tensor
    """float `(C, 1, 1)`."""
    shift: Tensor
    """float `(C, 1, 1)` or `(C, H, W)`."""
    dtype: torch.dtype
    """Dtype of the result."""

    def __call__(self, images: Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
        """Normalize images.

        Args:
            images: uint8 `(N, C, H, W)` or `(C, H, W)`; not changed.
            memory_format: Layout of the result; matters only for `(N, C, H, W)`.

        Returns:
            `dtype`, the shape of `images`.
        """
        # A conversion and in-place passes are each vectorized, unlike fused operations with broadcast constants. The layout
        # is changed last because copying floats is several times as fast as copying with a conversion from uint8.
        if self._is_faster_by_rows(images):
            count, channels, height, width = images.shape
            rows = images.permute(0, 2, 3, 1).reshape(count, height, width * channels)  # a view
            scaled = self._scaled(rows, self.scale.flatten().repeat(width), self.shift.flatten().repeat(width))
            out = scaled.view(count, height, width, channels).permute(0, 3, 1, 2)
        else:
            out = self._scaled(images, self.scale, self.shift)
        return out.contiguous(memory_format=memory_format)

    def _scaled(self, images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return images.to(scale.dtype).mul_(scale).add_(shift).to(self.dtype)

    def _is_faster_by_rows(self, images: Tensor) -> bool:
        """Return whether rows of (W, C) values with repeated constants are faster: 3 constants alone are too few to vectorize."""
        is_channels_last = images.ndim == 4 and images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
        return is_channels_last and images.device.type == "cpu" and self.shift.shape[-1] == 1


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: object) -> str:
    return visible(repr(value), 80)


def network_format(module: nn.Module) -> tuple[torch.dtype, torch.memory_format]:
    """Return the dtype and memory format of a network's parameters.

    Returns:
        The dtype of the first floating-point parameter, or float32 without one; and channels_last if the first convolution
        weight that shows its layout is channels_last, else contiguous. (Weights of 1x1 kernels and of a single input
        channel do not show it: both layouts are the same.)
    """
    dtype = None
    for parameter in module.parameters():
        if dtype is None and parameter.is_floating_point():
            dtype = parameter.dtype
        if parameter.ndim == 4:
            is_channels_last = parameter.is_contiguous(memory_format=torch.channels_last)
            if is_channels_last != parameter.is_contiguous():
                return dtype or torch.float32, torch.channels_last if is_channels_last else torch.contiguous_format
    return dtype or torch.float32, torch.contiguous_format
