"""`ResNet`: the residual networks of He et al. 2015 and 2016, built from a `ResNetConfig`.

    image ── stem ── layer1 ── layer2 ── ... ── pool ── fc ── logits

Parameter names are torchvision's: conv1, bn1, layer1.0.conv1, layer1.0.bn1, layer1.0.downsample.0, fc. A deep stem and
average-pooled projections are named as in timm's resnet50d: conv1.0, conv1.1, conv1.3, layer1.0.downsample.1.

A pre-activation network has no bn1 after its stem but a `bn` after its last stage. Against timm's resnetv2_50:

    here                      timm
    conv1                     stem.conv
    layer{i}.{j}.bn{k}        stages.{i - 1}.blocks.{j}.norm{k}
    layer{i}.{j}.conv{k}      stages.{i - 1}.blocks.{j}.conv{k}
    layer{i}.{j}.downsample.0 stages.{i - 1}.blocks.{j}.downsample.conv
    bn                        norm
    fc                        head.fc, a 1x1 convolution: its weight has two more dimensions of size 1
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn, relu_
from torch.utils.checkpoint import checkpoint

from reslight.messages import UsageError
from reslight.models.blocks import BasicBlock, Bottleneck, Place, PreActBasicBlock, PreActBottleneck, conv3x3
from reslight.models.config import ResNetConfig


class ResNet(nn.Module):
    """A residual network, or its plain twin, with new weights drawn from torch's global generator.

    Attributes:
        config: what it was built from; `ResNet(net.config)` has the same architecture.
        preprocess: what to do to an image first (a `reslight.Preprocess`); None unless it came with the weights.
        labels: name of each class; None unless they came with the weights.

    Raises:
        ValueError: not a `ResNetConfig`.

    Source: He et al. 2015 (arXiv:1512.03385), He et al. 2016 (arXiv:1603.05027).
    """

    preprocess: Any
    labels: tuple[str, ...] | None

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.preprocess = self.labels = None
        if not isinstance(config, ResNetConfig):
            raise UsageError(f"ResNet is built from a ResNetConfig, not {reprlib.repr(config)}; for a name, use create_model")
        self.config = config
        self.conv1 = build_stem(config)
        if not config.preact:
            self.bn1 = nn.BatchNorm2d(config.stem_width)
        self.maxpool = nn.Identity() if config.stem == "small" else nn.MaxPool2d(3, stride=2, padding=1)
        for name, stage in build_stages(config).items():
            self.add_module(name, stage)
        out_channels = config.widths[-1] * config.expansion
        if config.preact:
            self.bn = nn.BatchNorm2d(out_channels)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(out_channels, config.num_classes)
        if not self.fc.weight.is_meta:  # without memory there is nothing to draw, and normal_ would import torch's compiler for it
            init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classifies images.

        Args:
            x: normalised images, (N, in_channels, H, W).

        Returns:
            Logits, (N, num_classes).
        """
        x = self.forward_stem(x)
        for name in self.config.stage_names:
            x = self.get_submodule(name)(x)
        return self.forward_head(x)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """The output of the stem (after its max-pool) and of every stage, by name.

        Args:
            x: normalised images, (N, in_channels, H, W).

        Returns:
            "stem", "layer1", "layer2", ...: each (N, C, H / s, W / s) with its own channels C and stride s. In a
            pre-activation network they are what the blocks pass on: not yet normalised, not yet through a ReLU.
        """
        x = self.forward_stem(x)
        features = {"stem": x}
        for name in self.config.stage_names:
            features[name] = x = self.get_submodule(name)(x)
        return features

    def forward_stem(self, x: Tensor) -> Tensor:
        """Images (N, in_channels, H, W) -> (N, stem_width, H / s, W / s): s is 1 for the small stem, else 4."""
        x = self.conv1(x)
        if not self.config.preact:
            x = relu_(self.bn1(x))
        pooled: Tensor = self.maxpool(x)
        return pooled

    def forward_head(self, x: Tensor) -> Tensor:
        """Output of the last stage (N, C, H, W) -> logits (N, num_classes)."""
        logits: Tensor = self.fc(self.forward_pool(x))
        return logits

    def forward_pool(self, x: Tensor) -> Tensor:
        """Output of the last stage (N, C, H, W) -> what the classifier sees, (N, C): the mean over the image."""
        if self.config.preact:
            x = relu_(self.bn(x))
        pooled: Tensor = self.avgpool(x)
        return pooled.flatten(1)

    def reset_head(self, num_classes: int) -> None:
        """Replaces the classifier by a new one, with the old one's device and dtype.

        Optimizers made before hold the old parameters; make them after.

        Raises:
            ValueError: the number of classes is not allowed.
        """
        self.config = replace(self.config, num_classes=num_classes)
        old = self.fc.weight
        self.fc = nn.Linear(self.fc.in_features, num_classes, device=old.device, dtype=old.dtype).train(self.training)


class Stage(nn.Sequential):
    """The blocks of one width, one after the other; with activation checkpointing if `recompute`."""

    def __init__(self, *blocks: nn.Module, recompute: bool) -> None:
        super().__init__(*blocks)
        self.recompute = recompute

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the last block's output."""
        for block in self:
            x = recomputed(block, x) if self.recompute and self.training else block(x)
        return x


def build_stem(config: ResNetConfig) -> nn.Module:
    """The convolutions before the first stage, without the batch norm, ReLU and max-pool that follow."""
    width = config.stem_width
    if config.stem == "small":
        return conv3x3(config.in_channels, width)
    if config.stem == "imagenet":
        return nn.Conv2d(config.in_channels, width, 7, stride=2, padding=3, bias=False)
    half = width // 2
    return nn.Sequential(
        conv3x3(config.in_channels, half, stride=2),
        nn.BatchNorm2d(half),
        nn.ReLU(inplace=True),
        conv3x3(half, half),
        nn.BatchNorm2d(half),
        nn.ReLU(inplace=True),
        conv3x3(half, width),
    )


def build_stages(config: ResNetConfig) -> dict[str, Stage]:
    """The stages by name. Every stage but the first halves the image in its first block."""
    blocks = (PreActBasicBlock, PreActBottleneck) if config.preact else (BasicBlock, Bottleneck)
    block = blocks[config.block == "bottleneck"]
    return {
        name: Stage(*(block(config, place) for place in places), recompute=config.checkpoint)
        for name, places in zip(config.stage_names, plan_stages(config), strict=True)
    }


def plan_stages(config: ResNetConfig) -> list[list[Place]]:
    """The place of every block, stage by stage.

    The rate of stochastic depth follows the linear rule: l / L of `drop_path` for block l of L, counted from 1
    (Huang et al. 2016, equation 4).
    """
    stages: list[list[Place]] = []
    in_channels, done, total = config.stem_width, 0, sum(config.depths)
    for depth, width in zip(config.depths, config.widths, strict=True):
        places = []
        for number in range(depth):
            stride = 2 if stages and number == 0 else 1
            rate = config.drop_path * (done + 1) / total
            places.append(Place(in_channels, width, stride, rate, first=done == 0))
            in_channels, done = width * config.expansion, done + 1
        stages.append(places)
    return stages


def init_weights(net: ResNet) -> None:
    """He-normal convolutions (fan-out, undivided by groups, as in torchvision); batch norms and the classifier keep torch's default.

    Source: He et al. 2015b (arXiv:1502.01852), section 2.2.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if net.config.zero_init:
        for module in net.modules():
            if isinstance(module, BasicBlock | Bottleneck | PreActBasicBlock | PreActBottleneck):
                module.zero_init()


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """`block(x)`, keeping only x: what is inside is computed again when the backward pass needs it.

    Outputs, gradients and running statistics are to the bit those of `block(x)`.
    """

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        """Around the forward pass, and around its repetition."""
        return nullcontext(), frozen_statistics(block)

    out: Tensor
    if torch.compiler.is_compiling():  # it never repeats an update of a buffer, and cannot trace the contexts
        out = checkpoint(block, x, use_reentrant=False)
    else:
        out = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
    return out


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Inside, batch norms in training mode keep their running statistics: a second look is not a new batch.

    They still get the statistics (with momentum 0), as the backward pass wants the same tensors both times.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm)]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, batches in before:
            norm.momentum, norm.num_batches_tracked = momentum, batches
