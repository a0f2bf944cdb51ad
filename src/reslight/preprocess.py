"""`Preprocess`: what must be done to an image before a network sees it. It belongs to the weights, not the data.

    image (PIL or uint8) -> resize the shorter side -> center crop -> (image / 255 - mean) / std

Data modules resize by their own means and use only the last step, batched and on the device, through `normalizer`; both
roads end in the same arithmetic, so they agree to the bit. torchvision and Pillow are imported where an image needs
them: importing this module costs torch.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from reslight.messages import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

Interpolation = Literal["bilinear", "bicubic"]

_STRIP = 32
"""Images whose longer side is so many times the shorter one are cut to that first."""
_MAX_SIZE = 4096  # a config from the internet must not make us allocate gigabytes


@dataclass(frozen=True)
class Preprocess:
    """How to feed a network."""

    size: int
    """Height and width, in pixels, of what the network gets."""
    mean: tuple[float, ...]
    """Mean to subtract, on the scale 0 to 1: one for each channel, or one for each pixel in (C, H, W) order."""
    std: tuple[float, ...]
    """Standard deviation to divide by, on the scale 0 to 1, one for each channel."""
    resize: int | None = None
    """Length of the shorter side, in pixels, before the center crop to `size`; `size` when left out."""
    interpolation: Interpolation = "bilinear"
    """How to resize, always antialiased."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: A field is out of range or does not fit another.
        """
        if not _is_int(self.size) or not 1 <= self.size <= _MAX_SIZE:
            raise UsageError(f"preprocess.size is {self.size!r}, must be a whole number from 1 to {_MAX_SIZE}")
        if self.resize is not None and (not _is_int(self.resize) or not self.size <= self.resize <= 2 * _MAX_SIZE):
            raise UsageError(
                f"preprocess.resize is {self.resize!r}, must be null or a whole number from {self.size} (size) to {2 * _MAX_SIZE}"
            )
        if self.interpolation not in get_args(Interpolation):
            raise UsageError(f"preprocess.interpolation is {self.interpolation!r}, must be one of: {', '.join(get_args(Interpolation))}")
        self._check_statistics()

    def _check_statistics(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not all(_is_finite(value) for value in values):
                raise UsageError(f"preprocess.{name} is {_short(values)}, must be a tuple of finite numbers")
        if not self.std or min(self.std) <= 0:
            raise UsageError(f"preprocess.std is {_short(self.std)}, must have one number above 0 for each channel")
        channels = len(self.std)
        if len(self.mean) not in (channels, channels * self.size**2):
            raise UsageError(
                f"preprocess.mean has {len(self.mean)} values, must have {channels}, as std, "
                f"or {channels * self.size**2}, one for each pixel"
            )

    @property
    def channels(self) -> int:
        """Number of channels: 1 is grey, 3 is RGB."""
        return len(self.std)

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict that survives JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` was called on.

        Raises:
            ValueError: A key is unknown or missing, or a value is out of range.
        """
        names = [field.name for field in fields(cls)]
        if unknown := sorted(set(data) - set(names)):
            raise UsageError(f"preprocess has unknown keys: {', '.join(unknown)}; allowed are: {', '.join(names)}")
        if missing := [name for name in names if name not in data]:
            raise UsageError(f"preprocess lacks keys: {', '.join(missing)}")
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        return cls(**values)

    def __call__(self, image: "Image | Tensor") -> Tensor:
        """Make an image what the network expects, as in evaluation.

        Args:
            image: A Pillow image of any mode, or uint8 `(C, H, W)` or `(N, C, H, W)`.

        Returns:
            float32 `(C, size, size)` or `(N, C, size, size)`.

        Raises:
            TypeError: `image` is neither.
            ValueError: A tensor has another dtype or shape.
        """
        if isinstance(image, Tensor):
            self._check_tensor(image)
            top, left, height, width = middle(image.shape[-2], image.shape[-1])
            part = image[..., top : top + height, left : left + width]
            return self.normalize(self._center_crop(self._resize_tensor(part)))
        return self.normalize(self._center_crop(self._pil_to_tensor(image)))

    def normalize(
        self,
        images: Tensor,
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> Tensor:
        """Return `(images / 255 - mean) / std`; see `Normalizer`. For many batches keep a `normalizer`."""
        return self.normalizer(images.device, dtype)(images, memory_format)

    def normalizer(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> "Normalizer":
        """Return the function that normalises batches on `device`, its constants already there.

        Args:
            device: Where the batches will be.
            dtype: The floating-point type to write.
        """
        # bfloat16 has 8 bits of precision: computing in it would shift every image by rounded constants
        compute = torch.float64 if dtype == torch.float64 else torch.float32
        std = torch.tensor(self.std, dtype=torch.float64).view(-1, 1, 1)
        mean = torch.tensor(self.mean, dtype=torch.float64)
        mean = mean.view(-1, 1, 1) if len(self.mean) == self.channels else mean.view(-1, self.size, self.size)
        scale, shift = (1 / (255 * std)).to(compute), (-mean / std).to(compute)
        return Normalizer(scale.to(device), shift.to(device), dtype)

    def _check_tensor(self, image: Tensor) -> None:
        if image.dtype != torch.uint8 or image.ndim not in (3, 4) or image.shape[-3] != self.channels:
            raise UsageError(
                f"image is {image.dtype} {tuple(image.shape)}, must be torch.uint8 ({self.channels}, H, W) or "
                f"(N, {self.channels}, H, W), with values from 0 to 255"
            )

    @property
    def _shorter_side(self) -> int:
        return self.resize or self.size

    def _needs_resize(self, height: int, width: int) -> bool:
        return min(height, width) != self._shorter_side

    def _resize_tensor(self, image: Tensor) -> Tensor:
        if not self._needs_resize(*image.shape[-2:]):
            return image
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2 import functional as tvf

        how = InterpolationMode(self.interpolation)
        resized: Tensor = tvf.resize_image(image, [self._shorter_side], how, antialias=True)
        return resized

    def _pil_to_tensor(self, image: "Image") -> Tensor:
        """Resize with Pillow, as the pipelines behind published accuracies do, and return uint8 `(C, H, W)`."""
        from PIL import Image
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2 import functional as tvf

        if not isinstance(image, Image.Image):
            raise TypeError(f"image is a {type(image).__name__}, must be a Pillow image or a uint8 tensor")
        modes = {1: "L", 3: "RGB"}
        if self.channels not in modes:
            raise UsageError(f"a Pillow image cannot be converted to {self.channels} channels; give a uint8 tensor")
        image = image.convert(modes[self.channels])
        top, left, height, width = middle(image.height, image.width)
        image = image.crop((left, top, left + width, top + height))
        if self._needs_resize(height, width):
            image = tvf.resize(image, [self._shorter_side], InterpolationMode(self.interpolation))
        tensor: Tensor = tvf.pil_to_tensor(image)
        return tensor

    def _center_crop(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        # round() as torchvision does, to meet its published numbers
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return image[..., top : top + self.size, left : left + self.size]


def middle(height: int, width: int) -> tuple[int, int, int, int]:
    """The part of an image that is resized, as top, left, height and width: all of it, unless it is a strip.

    Of an image of 1 x 6,000 pixels, resized to 224 x 1,344,000, only the middle would be kept.
    """
    longest = _STRIP * min(height, width)
    tall, wide = min(height, longest), min(width, longest)
    return (height - tall) // 2, (width - wide) // 2, tall, wide


@dataclass(frozen=True, eq=False)
class Normalizer:
    """`images * scale + shift`, which is `(images / 255 - mean) / std`."""

    scale: Tensor
    """Float `(C, 1, 1)`."""
    shift: Tensor
    """Float `(C, 1, 1)` or `(C, H, W)`."""
    dtype: torch.dtype
    """What is written."""

    def __call__(self, images: Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
        """Normalise.

        Args:
            images: uint8 `(N, C, H, W)` or `(C, H, W)`; not changed.
            memory_format: Layout to write; only `(N, C, H, W)` has a choice.

        Returns:
            `dtype`, of the shape of `images`.
        """
        # Plain conversions and in-place passes: each is vectorised, which the fused forms with broadcast constants are
        # not. The layout is changed last, for a float copy is several times as fast as one that converts from uint8 on
        # the way.
        if self._goes_by_rows(images):
            count, channels, height, width = images.shape
            rows = images.permute(0, 2, 3, 1).reshape(count, height, width * channels)  # a view
            scaled = self._scaled(rows, self.scale.flatten().repeat(width), self.shift.flatten().repeat(width))
            out = scaled.view(count, height, width, channels).permute(0, 3, 1, 2)
        else:
            out = self._scaled(images, self.scale, self.shift)
        return out.contiguous(memory_format=memory_format)

    def _scaled(self, images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return images.to(scale.dtype).mul_(scale).add_(shift).to(self.dtype)

    def _goes_by_rows(self, images: Tensor) -> bool:
        """Whether rows of (W, C) values, with constants repeated along them, are faster: three constants in a row are no vector."""
        is_channels_last = images.ndim == 4 and images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
        return is_channels_last and images.device.type == "cpu" and self.shift.shape[-1] == 1


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


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
