"""Normalize whole batches on their device, in the dtype and memory format of a network."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


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
