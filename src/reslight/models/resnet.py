"""`ResNet`: the residual networks of He et al. 2015 and 2016, built from a `ResNetConfig`.

    image ── stem ── layer1 ── layer2 ── ... ── pool ── fc ── logits

Parameter names are torchvision's: conv1, bn1, layer1.0.conv1, layer1.0.bn1, layer1.0.downsample.0, fc. A deep stem and
average-pooled projections have the names of timm's resnet50d: conv1.0, conv1.1, conv1.3, layer1.0.downsample.1.

A pre-activation network has no bn1 after its stem but a `bn` after its last stage. Compared with timm's resnetv2_50:

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
from reslight.models.blocks import BasicBlock, BlockSpec, Bottleneck, PreActBasicBlock, PreActBottleneck, conv3x3
from reslight.models.config import ResNetConfig


class ResNet(nn.Module):
    """A residual or plain network, with random weights drawn from torch's global generator.

    Attributes:
        config: The configuration; `ResNet(net.config)` has the same architecture.
        preprocess: What to do to an image first (a `reslight.Preprocess`); None unless it came with the weights.
        labels: Name of each class; None unless they came with the weights.
        multi_label: Whether an image may have several classes: the sigmoid of a logit is then the probability of its class.
        temperature: What to divide the logits by before the softmax; 1 unless one came with the weights.

    Raises:
        UsageError: an argument that is not a `ResNetConfig`.

    Source: He et al. 2015 (arXiv:1512.03385), He et al. 2016 (arXiv:1603.05027).
    """

    preprocess: Any
    labels: tuple[str, ...] | None
    multi_label = False
    temperature = 1.0

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.preprocess = self.labels = None
        if not isinstance(config, ResNetConfig):
            raise UsageError(f"config is {reprlib.repr(config)}: ResNet takes a ResNetConfig. For a name, use create_model.")
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
        if not self.fc.weight.is_meta:  # a network without memory has no values, and initializing it would import torch's compiler
            init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images.

        Args:
            x: Normalized images, (N, in_channels, H, W).

        Returns:
            Logits, (N, num_classes).
        """
        x = self.forward_stem(x)
        for name in self.config.stage_names:
            x = self.get_submodule(name)(x)
        return self.forward_head(x)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the output of the stem (after its max-pool) and of every stage, by name.

        Args:
            x: Normalized images, (N, in_channels, H, W).

        Returns:
            "stem", "layer1", "layer2", ...: each (N, C, H / s, W / s) with its own channels C and stride s. In a
            pre-activation network they are the outputs of the blocks, before the batch norm and ReLU that follow.
        """
        x = self.forward_stem(x)
        features = {"stem": x}
        for name in self.config.stage_names:
            features[name] = x = self.get_submodule(name)(x)
        return features

    def forward_stem(self, x: Tensor) -> Tensor:
        """Images (N, in_channels, H, W) -> (N, stem_width, H / s, W / s): s is 1 for the small stem, otherwise 4."""
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
        """Output of the last stage (N, C, H, W) -> input of the classifier (N, C): the mean over the image."""
        if self.config.preact:
            x = relu_(self.bn(x))
        pooled: Tensor = self.avgpool(x)
        return pooled.flatten(1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of each class: the softmax of the logits divided by the temperature; sigmoids with several labels.

        Args:
            logits: Of `forward`, (N, num_classes).

        Returns:
            float64, (N, num_classes).
        """
        scaled = logits.double() / self.temperature
        return scaled.sigmoid() if self.multi_label else scaled.softmax(dim=1)

    def reset_head(self, num_classes: int) -> None:
        """Replace the classifier with a new one of random weights, on the same device and of the same dtype.

        Create the optimizer afterwards: an earlier one would hold the old parameters.

        Raises:
            UsageError: a number of classes that is not allowed.
        """
        self.config = replace(self.config, num_classes=num_classes)
        old = self.fc.weight
        self.fc = nn.Linear(self.fc.in_features, num_classes, device=old.device, dtype=old.dtype).train(self.training)


class Stage(nn.Sequential):
    """The blocks of one width, in sequence; with activation checkpointing if `recompute`."""

    def __init__(self, *blocks: nn.Module, recompute: bool) -> None:
        super().__init__(*blocks)
        self.recompute = recompute

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the last block's output."""
        for block in self:
            x = recomputed(block, x) if self.recompute and self.training else block(x)
        return x


def build_stem(config: ResNetConfig) -> nn.Module:
    """Build the convolutions before the first stage, without the batch norm, ReLU and max-pool that follow."""
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
    """Build the stages, by name. Every stage except the first halves height and width in its first block."""
    blocks = (PreActBasicBlock, PreActBottleneck) if config.preact else (BasicBlock, Bottleneck)
    block = blocks[config.block == "bottleneck"]
    return {
        name: Stage(*(block(config, spec) for spec in specs), recompute=config.checkpoint)
        for name, specs in zip(config.stage_names, plan_stages(config), strict=True)
    }


def plan_stages(config: ResNetConfig) -> list[list[BlockSpec]]:
    """Return the specification of every block, stage by stage.

    The probability of stochastic depth follows the linear rule: `drop_path` times l / L for block l of L, counted from 1
    (Huang et al. 2016, equation 4).
    """
    stages: list[list[BlockSpec]] = []
    in_channels, done, total = config.stem_width, 0, sum(config.depths)
    for depth, width in zip(config.depths, config.widths, strict=True):
        specs = []
        for number in range(depth):
            stride = 2 if stages and number == 0 else 1
            rate = config.drop_path * (done + 1) / total
            specs.append(BlockSpec(in_channels, width, stride, rate, first=done == 0))
            in_channels, done = width * config.expansion, done + 1
        stages.append(specs)
    return stages


def init_weights(net: ResNet) -> None:
    """Initialize convolutions He-normally (fan-out, not divided by groups, as in torchvision); the rest keeps torch's default.

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
    """Return `block(x)` and keep only x in memory: the backward pass computes the rest again.

    Outputs, gradients and running statistics are the same as those of `block(x)`, to the bit.
    """

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        """Return the contexts of the forward pass and of its repetition."""
        return nullcontext(), frozen_statistics(block)

    out: Tensor
    if torch.compiler.is_compiling():  # the compiler does not repeat updates of buffers, and cannot trace the contexts
        out = checkpoint(block, x, use_reentrant=False)
    else:
        out = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
    return out


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch norms in training mode while a batch is computed a second time.

    The momentum is set to 0 instead of removing the statistics: the backward pass needs the same tensors both times.
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
