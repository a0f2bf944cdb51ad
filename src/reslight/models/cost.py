"""What a network costs: its parameters and its multiply-adds, counted without allocating it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from reslight.messages import UsageError
from reslight.models.config import ResNetConfig
from reslight.models.resnet import ResNet


@dataclass(frozen=True)
class Cost:
    """The size of a network and the work of one image."""

    parameters: int
    """Trainable numbers."""
    macs: int
    """Multiply-adds of the convolutions and of the classifier, as papers count them."""


def cost_of(config: ResNetConfig, input_size: int | None = None) -> Cost:
    """Counts parameters and multiply-adds of one square image, exactly.

    After its first block, all blocks of a stage have the same shape. So a twin with at most two blocks per stage is
    run on torch's meta device, which computes shapes only, and its second blocks count as often as the network has
    them: a net of 1,202 layers takes as little time as one of 14.

    Args:
        config: the network.
        input_size: height and width of the image; `config.input_size` unless given.

    Raises:
        ValueError: the image has no pixel.
    """
    size = config.input_size if input_size is None else input_size
    if size < 1:
        raise UsageError(f"input_size={size} must be at least 1")
    twin = _twin(config).eval()
    with torch.device("meta"):
        image = torch.empty(1, config.in_channels, size, size)
    return Cost(count_parameters(config), _repeat(_count_macs(twin, image), config))


def count_parameters(config: ResNetConfig) -> int:
    """Parameters of the network, without memory for them."""
    return _repeat({name: parameter.numel() for name, parameter in _twin(config).named_parameters()}, config)


def _twin(config: ResNetConfig) -> ResNet:
    """With at most two blocks per stage, and without memory."""
    with torch.device("meta"):
        return ResNet(replace(config, depths=tuple(min(depth, 2) for depth in config.depths)))


def _count_macs(net: nn.Module, image: Tensor) -> dict[str, int]:
    """Multiply-adds of one forward pass, by module name. Changes the network."""
    macs: dict[str, int] = {}

    def count(name: str, module: nn.Conv2d | nn.Linear, output: Tensor) -> None:
        # Each output is the product sum of one filter: the weights that belong to one output channel.
        macs[name] = output.numel() * module.weight[0].numel()

    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda module, _, output, name=name: count(name, module, output))
        for child_name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):  # counts for nothing, yet takes most of the time on meta
                setattr(module, child_name, nn.Identity())
    with torch.no_grad():
        net(image)
    return macs


def _repeat(counts: dict[str, int], config: ResNetConfig) -> int:
    """The sum of the twin's counts, its second blocks taken as often as the network has them."""
    times = {f"{name}.1": depth - 1 for name, depth in zip(config.stage_names, config.depths, strict=True)}
    return sum(count * times.get(".".join(name.split(".")[:2]), 1) for name, count in counts.items())
