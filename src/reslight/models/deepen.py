"""`deepen`: more layers, the same function.

He et al. 2015, section 1: a deeper net should do no worse than a shallower one, for "there exists a solution by construction to the
deeper model: the added layers are identity mapping, and the other layers are copied from the learned shallower model". Here it is.

The added blocks follow the old ones of their stage, so every parameter of the shallower net keeps its name.
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
"""What a name such as resnet56 does not decide: it is as the shallower net has it."""


def deepen(net: ResNet, to: str | ResNetConfig | Mapping[str, Any]) -> ResNet:
    """A deeper network that computes what `net` computes; `net` stays as it is.

        what the added blocks are                                     the same output in
        residual   the branch is zero, the shortcut does nothing      evaluation and training, to the bit
        plain, C   identity convolutions, batch norms that undo       evaluation, to rounding (float32, plain20 to plain56: 1e-6
                   what they do to the activations                    of the largest logit); training, approximately, as batch
                                                                      statistics move

    "C" is shortcut C of post-activation blocks, whose shortcuts are projections with a batch norm: none of them is an identity. (That
    of pre-activation blocks, without a batch norm, is one wherever a product with 1 is exact: not in TF32.)
    The other weights of the added blocks are new, drawn from torch's global generator, and the zeros get gradients: training goes on at
    once. In training mode stochastic depth draws as the deeper net's rates say, so there the outputs agree without it only.

    >>> deepen(ResNet(VARIANTS["resnet20"]), "resnet56").config.depths
    (9, 9, 9)

    Args:
        net: A residual or plain network of any form, on any device; labels and preprocess come along.
        to: The architecture: a name, of which the depths count and the options are those of `net` (shortcut, classes), or a whole
            configuration.

    Returns:
        A network of its own, all of it trainable, in the mode, on the device and in the dtype of `net`.

    Raises:
        ValueError: It is no deeper version of `net`, or has no identity: a plain net of bottlenecks, which narrow what they pass on, or
            of pre-activation, whose ReLUs cut what is negative.
    """
    config = deeper_config(net.config, to)
    deeper = ResNet(config).to(net.fc.weight.device, net.fc.weight.dtype)
    deeper.load_state_dict(deeper.state_dict() | net.state_dict())
    with torch.no_grad():
        for stage, blocks in added_blocks(deeper, net.config):
            last = stage[len(stage) - len(blocks) - 1]
            for block in blocks:
                _make_identity(config, block, last)
    deeper.preprocess, deeper.labels = net.preprocess, net.labels
    return deeper.train(net.training)


def added_blocks(deeper: ResNet, before: ResNetConfig) -> Iterator[tuple[nn.Sequential, list[nn.Module]]]:
    """The stages of a deepened network that have new blocks, and these blocks."""
    for name, depth in zip(before.stage_names, before.depths, strict=True):
        stage = deeper.get_submodule(name)
        assert isinstance(stage, nn.Sequential)
        if len(stage) > depth:
            yield stage, list(stage)[depth:]


def deeper_config(before: ResNetConfig, to: str | ResNetConfig | Mapping[str, Any]) -> ResNetConfig:
    """The configuration of the deeper network.

    Raises:
        ValueError: `to` is no deeper version of `before`, or has no identity.
    """
    asked = resolve_config(to)
    if isinstance(to, str) and _same_frame(asked, before):
        asked = replace(before, depths=asked.depths)
    there, here = asked.to_dict(), before.to_dict()
    free = {"depths", "drop_path", "zero_init", "checkpoint"}
    if isinstance(to, str):  # what it does not decide is not what is wrong with it
        free |= set(OPTIONS) - ({"shortcut"} if "none" in (asked.shortcut, before.shortcut) else set())
    if other := [key for key in here if there[key] != here[key] and key not in free]:
        said = ", ".join(f"{key} {there[key]} and not {here[key]}" for key in other)
        raise UsageError(f"{_called(to)} has {said}: layers can be added, nothing else can change; {_deeper_names(before)}")
    if len(asked.depths) != len(before.depths) or any(a < b for a, b in zip(asked.depths, before.depths, strict=True)):
        raise UsageError(f"{_called(to)} has depths {asked.depths}, fewer than the {before.depths} there are; {_deeper_names(before)}")
    if asked.depths == before.depths:
        raise UsageError(f"{_called(to)} has the depths {before.depths} that there are already; {_deeper_names(before)}")
    if before.shortcut == "none" and (before.block == "bottleneck" or before.preact):
        why = "a bottleneck narrows what it passes on" if before.block == "bottleneck" else "its ReLUs cut what is negative"
        raise UsageError(f"a plain net of this form has no identity to add ({why}); only plain nets of basic post-activation blocks have")
    return asked


def _same_frame(one: ResNetConfig, other: ResNetConfig) -> bool:
    """Whether two networks differ in their depths and options alone; plain or residual is no option."""
    fixed = [{key: value for key, value in config.to_dict().items() if key not in (*OPTIONS, "depths")} for config in (one, other)]
    return fixed[0] == fixed[1] and (one.shortcut == "none") == (other.shortcut == "none")


def _called(to: object) -> str:
    return to if isinstance(to, str) else "the deeper network"


def _deeper_names(before: ResNetConfig) -> str:
    """What to ask for instead."""
    found = [
        name
        for name, config in VARIANTS.items()
        if _same_frame(config, before)
        and sum(config.depths) > sum(before.depths)
        and all(a >= b for a, b in zip(config.depths, before.depths, strict=True))
    ]
    return f"it can become {', '.join(found)}" if found else "no architecture with a name is deeper; give a ResNetConfig with larger depths"


def _make_identity(config: ResNetConfig, block: Any, last: Any) -> None:
    """Make a new block the identity on what the `last` of the old ones puts out."""
    if config.shortcut == "none":
        mean, var = _rectified(last.bn2)
        for conv, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
            nn.init.dirac_(conv.weight)
            _undo(norm, mean, var)
        return
    block.zero_init()  # the branch; a new batch norm's beta is zero
    if config.shortcut != "C":
        return
    conv, *norms = [module for module in block.downsample if not isinstance(module, nn.Identity)]
    nn.init.dirac_(conv.weight)
    for norm in norms:
        shortcut = [module for module in last.downsample if isinstance(module, nn.BatchNorm2d)]
        _undo(norm, *_rectified(last.bn2 if config.block == "basic" else last.bn3, *shortcut))


def _undo(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor) -> None:
    """Give a batch norm the statistics of its input, and have it put out its input."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(var)
    # In evaluation a batch norm multiplies by gamma / sqrt(var + eps) and adds beta - mean times that: exactly 1 and 0, where a float
    # has an inverse among its neighbours.
    inverse = 1 / (norm.running_var + norm.eps).sqrt()
    gamma = 1 / inverse
    for other in (torch.nextafter(gamma, torch.full_like(gamma, math.inf)), torch.nextafter(gamma, torch.zeros_like(gamma))):
        gamma = torch.where(inverse * gamma == 1, gamma, torch.where(inverse * other == 1, other, gamma))
    norm.weight.copy_(gamma)
    norm.bias.copy_(norm.running_mean)


def _rectified(*norms: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Mean and variance, each (C,), of the ReLU of a sum of batch norms' outputs, taken as independent and normally distributed.

    In training mode a batch norm's output has mean beta and variance gamma^2 exactly; that it is normal is what is approximate here.
    """
    mean = sum((norm.bias.double() for norm in norms), torch.zeros(()))
    std = sum((norm.weight.double() ** 2 for norm in norms), torch.zeros(())).sqrt().clamp_min(1e-12)
    below = torch.special.ndtr(mean / std)
    density = torch.exp(-0.5 * (mean / std) ** 2) / math.sqrt(2 * math.pi)
    first = mean * below + std * density
    second = (mean**2 + std**2) * below + mean * std * density
    return first, (second - first**2).clamp_min(0)
