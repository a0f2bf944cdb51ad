"""Count the parameters and multiply-adds of a network, without allocating it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from reslight.messages import UsageError
from reslight.models.config import ResNetConfig
from reslight.models.resnet import ResNet


@dataclass(frozen=True)
class Cost:
    """The size of a network, and the work for one image."""

    parameters: int
    """Number of trainable values."""
    macs: int
    """Multiply-adds of the convolutions and of the classifier, which is what papers count."""


def cost_of(config: ResNetConfig, input_size: int | Sequence[int] | None = None) -> Cost:
    """Count the parameters, and the multiply-adds for one image, exactly.

    After its first block, all blocks of a stage have the same shape. So a copy with at most two blocks per stage runs, without weights
    and images, and the counts of its second blocks are multiplied: a network of 1,202 layers takes no longer than one of 14.

    Args:
        config: The network.
        input_size: Height and width of the image, in pixels: one number for a square; `config.input_size` if None.

    Raises:
        UsageError: an image size below 1.
    """
    size = config.input_size if input_size is None else input_size
    shape = (size, size) if isinstance(size, int) else tuple(size)
    if min(shape) < 1:
        raise UsageError(f"input_size is {size}: it must be at least 1.")
    no_images = torch.empty(0, config.in_channels, *shape)
    return Cost(count_parameters(config), _repeat(_count_macs(_shortened(config).eval(), no_images), config))


def count_parameters(config: ResNetConfig) -> int:
    """Return the number of parameters of a network, without allocating them."""
    return _repeat({name: parameter.numel() for name, parameter in _shortened(config).named_parameters()}, config)


def _shortened(config: ResNetConfig) -> ResNet:
    """Build the network with at most two blocks per stage, and without memory."""
    with torch.device("meta"):
        return ResNet(replace(config, depths=tuple(min(depth, 2) for depth in config.depths)))


def _count_macs(net: nn.Module, images: Tensor) -> dict[str, int]:
    """Return the multiply-adds for one of the images, by module name. Changes the network.

    Args:
        net: The network.
        images: Float `(N, C, H, W)`; N may be 0.
    """
    macs: dict[str, int] = {}
    for name, module in list(net.named_modules()):
        for child_name, child in module.named_children():
            if isinstance(child, nn.Conv2d | nn.Linear):
                setattr(module, child_name, _Counter(child, macs, f"{name}.{child_name}".lstrip(".")))
            elif isinstance(child, nn.BatchNorm2d):  # not counted
                setattr(module, child_name, nn.Identity())
    with torch.no_grad():
        net(images)
    return macs


class _Counter(nn.Module):
    """Stands in for a layer: counts its multiply-adds, and returns a result of its shape.

    The layer itself would do that on torch's meta device, for which torch imports a compiler and a library of algebra: two seconds.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, macs: dict[str, int], name: str) -> None:
        super().__init__()
        self.layer, self.macs, self.name = layer, macs, name

    def forward(self, x: Tensor) -> Tensor:
        channels, *filter_shape = self.layer.weight.shape
        shape = [channels]
        if isinstance(layer := self.layer, nn.Conv2d):
            assert not isinstance(layer.padding, str)  # "same" or "valid", which no network here has
            each = zip(x.shape[2:], layer.kernel_size, layer.stride, layer.padding, layer.dilation, strict=True)
            shape += [(side + 2 * pad - apart * (kernel - 1) - 1) // stride + 1 for side, kernel, stride, pad, apart in each]
        # Each output value is the dot product with one filter, which holds the weights of one output channel.
        self.macs[self.name] = math.prod(shape) * math.prod(filter_shape)
        return x.new_empty(len(x), *shape)


def _repeat(counts: dict[str, int], config: ResNetConfig) -> int:
    """Return the sum of the counts, with those of second blocks multiplied by the number of blocks that they stand for."""
    times = {f"{name}.1": depth - 1 for name, depth in zip(config.stage_names, config.depths, strict=True)}
    return sum(count * times.get(".".join(name.split(".")[:2]), 1) for name, count in counts.items())
