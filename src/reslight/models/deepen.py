"""`deepen`: a network with more layers that computes the same function.

He et al. 2015, section 1: a deeper network should do no worse than a shallower one, because "there exists a solution by construction
to the deeper model: the added layers are identity mapping, and the other layers are copied from the learned shallower model". This
module builds that solution.

The added blocks follow the old ones of their stage, so every parameter of the shallower network keeps its name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from reslight.messages import UsageError
from reslight.models.config import ResNetConfig
from reslight.models.resnet import ResNet
from reslight.models.variants import VARIANTS, resolve_config

OPTIONS = ("shortcut", "pad", "stride_on", "drop_path", "zero_init", "in_channels", "num_classes", "checkpoint")
"""Fields that a name such as resnet56 does not decide: the deeper network has the values of the shallower one."""


def deepen(net: ResNet, to: str | ResNetConfig | Mapping[str, Any]) -> ResNet:
    """Build a deeper network that computes what `net` computes; `net` is not changed.

        network    the added blocks                                   the outputs are equal
        residual   the branch is zero, the shortcut an identity       in evaluation and training, to the bit
        plain, C   identity convolutions, and batch norms that        in evaluation, up to rounding (float32, plain20 to plain56: 1e-6
                   undo their own normalization                       of the largest logit); in training approximately, because batch
                                                                      statistics change

    "C" is shortcut C of post-activation blocks, whose shortcuts are projections with a batch norm. (The projections of pre-activation
    blocks have no batch norm and are exact identities wherever a product with 1 is exact, which it is not in TF32.)
    The other weights of the added blocks are drawn from torch's global generator. The zeros get gradients, so the added blocks train
    from the first step. Stochastic depth drops blocks with the deeper network's probabilities, so with it the outputs in training
    differ.

    Examples:
        >>> deepen(ResNet(VARIANTS["resnet20"]), "resnet56").config.depths
        (9, 9, 9)

    Args:
        net: A residual or plain network of any form, on any device; its labels and preprocess are copied.
        to: The architecture: a name, which decides the depths only (shortcut, classes and so on are those of `net`), or a complete
            configuration.

    Returns:
        A new network, with all parameters trainable, in the mode, on the device, of the dtype and in the memory order of `net`.

    Raises:
        UsageError: an architecture that is not a deeper version of `net`, or a network without identity blocks: a plain one of
            bottlenecks, which reduce the channels, or of pre-activation, whose ReLUs remove negative values.
    """
    config = deeper_config(net.config, to)
    # In another memory order, other kernels would compute the same convolution with other rounding.
    is_channels_last = not all(parameter.is_contiguous() for parameter in net.parameters())
    layout: dict[str, Any] = {"memory_format": torch.channels_last if is_channels_last else torch.contiguous_format}
    deeper = ResNet(config).to(net.fc.weight.device, net.fc.weight.dtype, **layout)
    deeper.load_state_dict(deeper.state_dict() | net.state_dict())
    with torch.no_grad():
        for stage, blocks in added_blocks(deeper, net.config):
            last = stage[len(stage) - len(blocks) - 1]
            for block in blocks:
                _make_identity(config, block, last)
    deeper.preprocess, deeper.labels = net.preprocess, net.labels
    return deeper.train(net.training)


def added_blocks(deeper: ResNet, before: ResNetConfig) -> Iterator[tuple[nn.Sequential, list[nn.Module]]]:
    """Yield the stages of a deepened network that have added blocks, each with these blocks."""
    for name, depth in zip(before.stage_names, before.depths, strict=True):
        stage = deeper.get_submodule(name)
        assert isinstance(stage, nn.Sequential)
        if len(stage) > depth:
            yield stage, list(stage)[depth:]


def deeper_config(before: ResNetConfig, to: str | ResNetConfig | Mapping[str, Any]) -> ResNetConfig:
    """Return the configuration of the deeper network.

    Raises:
        UsageError: a `to` that is not a deeper version of `before`, or a network without identity blocks.
    """
    asked = resolve_config(to)
    if isinstance(to, str) and _same_frame(asked, before):
        asked = replace(before, depths=asked.depths)
    wanted, given = asked.to_dict(), before.to_dict()
    free = {"depths", "drop_path", "zero_init", "checkpoint"}
    if isinstance(to, str):  # a name does not decide these fields, so they are not reported
        free |= set(OPTIONS) - ({"shortcut"} if "none" in (asked.shortcut, before.shortcut) else set())
    if other := [key for key in given if wanted[key] != given[key] and key not in free]:
        differences = ", ".join(f"{key} {wanted[key]} instead of {given[key]}" for key in other)
        raise UsageError(f"{_display_name(to)} has {differences}: only layers can be added. {_deeper_names(before)}")
    if len(asked.depths) != len(before.depths) or any(a < b for a, b in zip(asked.depths, before.depths, strict=True)):
        raise UsageError(f"{_display_name(to)} has depths {asked.depths}: the network has {before.depths}. {_deeper_names(before)}")
    if asked.depths == before.depths:
        raise UsageError(f"{_display_name(to)} has depths {before.depths}: the network has them already. {_deeper_names(before)}")
    if before.shortcut == "none" and (before.block == "bottleneck" or before.preact):
        why = "a bottleneck reduces the channels" if before.block == "bottleneck" else "its ReLUs remove negative values"
        raise UsageError(
            f"this plain network cannot be deepened, because {why}: only plain networks of basic post-activation blocks can be."
        )
    return asked


def _same_frame(one: ResNetConfig, other: ResNetConfig) -> bool:
    """Return whether two networks differ in depths and options only; being plain or residual is not an option."""
    fixed = [{key: value for key, value in config.to_dict().items() if key not in (*OPTIONS, "depths")} for config in (one, other)]
    return fixed[0] == fixed[1] and (one.shortcut == "none") == (other.shortcut == "none")


def _display_name(to: object) -> str:
    return to if isinstance(to, str) else "the deeper network"


def _deeper_names(before: ResNetConfig) -> str:
    """Return which names to use instead, as messages say it."""
    found = [
        name
        for name, config in VARIANTS.items()
        if _same_frame(config, before)
        and sum(config.depths) > sum(before.depths)
        and all(a >= b for a, b in zip(config.depths, before.depths, strict=True))
    ]
    return f"Use {', '.join(found)}." if found else "No named architecture is deeper: give a ResNetConfig with larger depths."


def _make_identity(config: ResNetConfig, block: Any, last: Any) -> None:
    """Make an added block the identity for the outputs of `last`, the last of the old blocks."""
    if config.shortcut == "none":
        mean, var = _rectified(last.bn2)
        for conv, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
            nn.init.dirac_(conv.weight)
            _undo(norm, mean, var)
        return
    block.zero_init()  # the branch is zero, because a new batch norm has bias 0
    if config.shortcut != "C":
        return
    conv, *norms = [module for module in block.downsample if not isinstance(module, nn.Identity)]
    nn.init.dirac_(conv.weight)
    for norm in norms:
        shortcut = [module for module in last.downsample if isinstance(module, nn.BatchNorm2d)]
        _undo(norm, *_rectified(last.bn2 if config.block == "basic" else last.bn3, *shortcut))


def _undo(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor) -> None:
    """Set the statistics of a batch norm to those of its input, and its weight and bias so that its output is its input."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(var)
    # In evaluation a batch norm multiplies by gamma / sqrt(var + eps) and adds beta - mean times that. These are exactly 1 and 0 if
    # gamma, or one of the two floats next to it, is the exact inverse.
    inverse = 1 / (norm.running_var + norm.eps).sqrt()
    gamma = 1 / inverse
    for other in (torch.nextafter(gamma, torch.full_like(gamma, math.inf)), torch.nextafter(gamma, torch.zeros_like(gamma))):
        gamma = torch.where(inverse * gamma == 1, gamma, torch.where(inverse * other == 1, other, gamma))
    norm.weight.copy_(gamma)
    norm.bias.copy_(norm.running_mean)


def _rectified(*norms: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return mean and variance, each (C,), of the ReLU of a sum of batch norms' outputs.

    In training mode the output of a batch norm has mean beta and variance gamma^2. That the outputs are normally distributed and
    independent is an approximation.
    """
    mean = sum((norm.bias.double() for norm in norms), torch.zeros(()))
    std = sum((norm.weight.double() ** 2 for norm in norms), torch.zeros(())).sqrt().clamp_min(1e-12)
    below = torch.special.ndtr(mean / std)
    density = torch.exp(-0.5 * (mean / std) ** 2) / math.sqrt(2 * math.pi)
    first = mean * below + std * density
    second = (mean**2 + std**2) * below + mean * std * density
    return first, (second - first**2).clamp_min(0)
