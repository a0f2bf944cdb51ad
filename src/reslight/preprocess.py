"""Preprocess an image for a network. The settings belong to the weights, not to the dataset.

    image (PIL or uint8) -> resize -> center crop, or padding -> (image / 255 - mean) / std

Data modules resize with their own code and use only the last step, on batches and on the device, through `normalizer`. Both
ways use the same arithmetic, so their results are equal to the bit. torchvision and Pillow are imported at the first image,
so that this module needs only torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

from reslight.messages import MissingPackageError, UsageError, check_keys, counted, visible
from reslight.plain import plain

if TYPE_CHECKING:
    from PIL.Image import Image

Interpolation = Literal["bilinear", "bicubic"]
Fitting = Literal["center", "squash", "letterbox"]
"""How an image of any shape becomes one of the network's shape."""
Size = int | tuple[int, int]
"""Height and width in pixels: one number for a square, or both."""

_STRIP = 32
"""Largest ratio of an image's sides; of longer images only the middle is resized."""
_MAX_PIXELS = 2**26
"""Pixels of a resized image that are wanted at most, before its center is cropped."""
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
        if isinstance(image, Tensor):
            self._check_tensor(image)
            resized = self._resize_tensor(image)
        else:
            resized = self._resize_pillow(image)
        return self.normalize(center_to(resized, self.shape, self.fill_values))

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

    def _check_tensor(self, image: Tensor) -> None:
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


class Fit(NamedTuple):
    """How an image comes near the network's shape; its center is then cropped, or padded."""

    part: tuple[int, int, int, int]
    """The part of the image that is resized: top, left, height and width."""
    size: tuple[int, int]
    """Height and width that the part is resized to."""


def shape_of(size: Size) -> tuple[int, int]:
    """Return height and width."""
    return size if isinstance(size, tuple) else (size, size)


def fit(height: int, width: int, shape: tuple[int, int], resize: int | None = None, how: Fitting = "center") -> Fit:
    """Return how an image comes near a network's shape. Sides are rounded as in torchvision and timm, on whose pixels accuracies depend.

    Args:
        height: Of the image.
        width: Of the image.
        shape: Height and width of the network's input.
        resize: The short side of the shape that the image is resized for, before the center crop; that of `shape` if None.
        how: See `Preprocess.crop`.
    """
    short = resize or min(shape)
    tall, wide = (side * short // min(shape) for side in shape)
    whole = (0, 0, height, width)
    if how == "squash":
        return Fit(whole, (tall, wide))
    if how == "letterbox":
        ratio = max(height / tall, width / wide)
        return Fit(whole, (max(1, round(height / ratio)), max(1, round(width / ratio))))
    part = middle(height, width, short, shape[1] / shape[0])
    _, _, height, width = part
    if tall == wide:
        return Fit(part, (short, int(short * width / height)) if height <= width else (int(short * height / width), short))
    ratio = min(height / tall, width / wide)
    return Fit(part, (round(height / ratio), round(width / ratio)))


def resize_tensor(image: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """Resize uint8 or uint16 `(..., C, H, W)`, antialiased."""
    if tuple(image.shape[-2:]) == size:
        return image
    tvf, modes_of_resizing = _torchvision()
    is_deep = image.dtype == torch.uint16
    source = image.float() if is_deep else image
    resized: Tensor = tvf.resize_image(source, list(size), modes_of_resizing(interpolation), antialias=True)
    return resized.round_().clamp_(0, 65535).to(torch.uint16) if is_deep else resized


def center_to(image: Tensor, shape: tuple[int, int], fill: tuple[int, ...]) -> Tensor:
    """Crop the center of an image `(..., C, H, W)`, or pad it to a shape.

    Args:
        image: uint8 or uint16.
        shape: Height and width of the result.
        fill: Value of added pixels, 0 to 255, for each channel.
    """
    height, width = image.shape[-2:]
    if height < shape[0] or width < shape[1]:
        tall, wide = max(height, shape[0]), max(width, shape[1])
        top, left = (tall - height) // 2, (wide - width) // 2
        scale = 257 if image.dtype == torch.uint16 else 1
        color = torch.tensor([value * scale for value in fill], dtype=torch.int32, device=image.device).to(image.dtype)
        padded = color.expand(*image.shape[:-3], tall, wide, len(fill)).clone().movedim(-1, -3)  # (H, W, C) in memory
        padded[..., top : top + height, left : left + width] = image
        image, height, width = padded, tall, wide
    # Rounded as in torchvision, whose published accuracies depend on it.
    top, left = round((height - shape[0]) / 2), round((width - shape[1]) / 2)
    return image[..., top : top + shape[0], left : left + shape[1]]


def _pixels(image: "Image", dtype: str = "uint8") -> Tensor:
    """Return the values of a Pillow image, `(C, H, W)`."""
    import numpy as np

    values = torch.from_numpy(np.array(image, dtype=dtype))  # a copy, which torch may write to
    return values.movedim(-1, 0).contiguous() if values.ndim == 3 else values[None]


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


def middle(height: int, width: int, short_side: int = 0, aspect: float = 1.0) -> tuple[int, int, int, int]:
    """Return the part of an image that is resized, as top, left, height and width: the whole image unless it is very long.

    An image of 1 x 6,000 pixels would be resized to 224 x 1,344,000, and the center crop would keep 224 x 224 of that.

    Args:
        height: Of the image.
        width: Of the image.
        short_side: What the short side is resized to; where it is above 1,448 pixels, 32 times as long would be gigabytes.
        aspect: Width divided by height of the center crop.
    """
    ratio = min(_STRIP, max(2, _MAX_PIXELS // max(1, short_side) ** 2))
    tall, wide = min(height, max(1, int(ratio * width / aspect))), min(width, max(1, int(ratio * height * aspect)))
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
            images: uint8 or uint16 `(N, C, H, W)` or `(C, H, W)`; not changed. 65535 of uint16 is 255 of uint8.
            memory_format: Layout of the result; matters only for `(N, C, H, W)`.

        Returns:
            `dtype`, the shape of `images`.
        """
        # A conversion and in-place passes are each vectorized, unlike fused operations with broadcast constants. The layout
        # is changed last because copying floats is several times as fast as copying with a conversion from uint8.
        scale = self.scale / 257 if images.dtype == torch.uint16 else self.scale
        if self._is_faster_by_rows(images):
            count, channels, height, width = images.shape
            rows = images.permute(0, 2, 3, 1).reshape(count, height, width * channels)  # a view
            scaled = self._scaled(rows, scale.flatten().repeat(width), self.shift.flatten().repeat(width))
            out = scaled.view(count, height, width, channels).permute(0, 3, 1, 2)
        else:
            out = self._scaled(images, scale, self.shift)
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
