"""The blocks of residual networks: basic and bottleneck, their pre-activation versions, and their shortcuts.

    basic           3x3 - 3x3                He et al. 2015, section 3.3 and figure 5, left
    bottleneck      1x1 - 3x3 - 1x1          He et al. 2015, section 4.1 and figure 5, right
    pre-activation  BN - ReLU before conv    He et al. 2016, figure 4(e)

A block of a plain network is the same block without the addition: its `downsample` is None.

`relu_` and `add_` overwrite their first tensor, which saves memory and, in inference on a CPU, up to a fifth of the time. Nothing else uses
that tensor: it is the output of a batch norm, a convolution or an addition.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn, relu_
from torch.nn import functional as F

from reslight.models.config import ResNetConfig


@dataclass(frozen=True)
class BlockSpec:
    """What a block is built from, besides the configuration of its network.

    Attributes:
        in_channels: Channels of the input.
        width: Width of the stage.
        stride: 2 for a block that halves height and width.
        drop_path: Probability that stochastic depth drops the block.
        first: Whether this is the first block of the network.
    """

    in_channels: int
    width: int
    stride: int = 1
    drop_path: float = 0.0
    first: bool = False


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, figure 2).

        x ─┬─ conv1 ─ bn1 ─ relu ─ conv2 ─ bn2 ─┬─ + ─ relu ─>
           └──────────── downsample ────────────┘

    `downsample` is torchvision's name of the shortcut, also where the size does not change.
    """

    def __init__(self, config: ResNetConfig, spec: BlockSpec) -> None:
        super().__init__()
        self.conv1 = conv3x3(spec.in_channels, spec.width, spec.stride)
        self.bn1 = nn.BatchNorm2d(spec.width)
        self.conv2 = conv3x3(spec.width, spec.width)
        self.bn2 = nn.BatchNorm2d(spec.width)
        self.downsample = make_shortcut(config, spec)
        self.drop_path = StochasticDepth(spec.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, width, H / stride, W / stride)."""
        out = relu_(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            out = self.drop_path(out).add_(self.downsample(x))
        return relu_(out)

    def zero_init(self) -> None:
        """Set the last batch norm's weight to zero, so that the residual branch starts at zero (Goyal et al. 2017, section 5.1)."""
        nn.init.zeros_(self.bn2.weight)


class Bottleneck(nn.Module):
    """A 1x1 convolution that narrows, a 3x3, and a 1x1 that widens (He et al. 2015, section 4.1).

        x ─┬─ conv1 ─ bn1 ─ relu ─ conv2 ─ bn2 ─ relu ─ conv3 ─ bn3 ─┬─ + ─ relu ─>
           └─────────────────────── downsample ──────────────────────┘

    With groups in the 3x3 it is ResNeXt's block (Xie et al. 2017, figure 3(c)).
    """

    def __init__(self, config: ResNetConfig, spec: BlockSpec) -> None:
        super().__init__()
        inner, out_channels = config.inner_width(spec.width), spec.width * config.expansion
        stride1, stride2 = _split_stride(config, spec)
        self.conv1 = conv1x1(spec.in_channels, inner, stride1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv3x3(inner, inner, stride2, config.groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv1x1(inner, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = make_shortcut(config, spec)
        self.drop_path = StochasticDepth(spec.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 4 width, H / stride, W / stride)."""
        out = relu_(self.bn1(self.conv1(x)))
        out = relu_(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            out = self.drop_path(out).add_(self.downsample(x))
        return relu_(out)

    def zero_init(self) -> None:
        """Set the last batch norm's weight to zero, so that the residual branch starts at zero (Goyal et al. 2017, section 5.1)."""
        nn.init.zeros_(self.bn3.weight)


class PreActBasicBlock(nn.Module):
    """The basic block with its activations before its convolutions (He et al. 2016, figure 4(e)).

        x ─┬─ bn1 ─ relu ─┬─ conv1 ─ bn2 ─ relu ─ conv2 ─┬─ + ─>
           └─── either ───┴───────── downsample ─────────┘

    The shortcut starts at x, so that the signal passes through the whole network unchanged. Where the shape changes, and in
    the first block of the network, it starts after the activation instead (the paper's appendix).
    """

    def __init__(self, config: ResNetConfig, spec: BlockSpec) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(spec.in_channels)
        self.conv1 = conv3x3(spec.in_channels, spec.width, spec.stride)
        self.bn2 = nn.BatchNorm2d(spec.width)
        self.conv2 = conv3x3(spec.width, spec.width)
        self.downsample = make_shortcut(config, spec)
        self.drop_path = StochasticDepth(spec.drop_path)
        self.shortcut_after_activation = spec.first or _changes_shape(config, spec)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, width, H / stride, W / stride)."""
        activated = relu_(self.bn1(x))
        out: Tensor = self.conv1(activated)
        out = self.conv2(relu_(self.bn2(out)))
        if self.downsample is not None:
            out = self.drop_path(out).add_(self.downsample(activated if self.shortcut_after_activation else x))
        return out

    def zero_init(self) -> None:
        """Set the last convolution to zero, so that the residual branch, which no batch norm ends, starts at zero."""
        nn.init.zeros_(self.conv2.weight)


class PreActBottleneck(nn.Module):
    """The bottleneck with its activations before its convolutions (He et al. 2016, figure 4(e)).

        x ─┬─ bn1 ─ relu ─┬─ conv1 ─ bn2 ─ relu ─ conv2 ─ bn3 ─ relu ─ conv3 ─┬─ + ─>
           └─── either ───┴──────────────────── downsample ───────────────────┘

    The shortcut starts where that of `PreActBasicBlock` does.
    """

    def __init__(self, config: ResNetConfig, spec: BlockSpec) -> None:
        super().__init__()
        inner, out_channels = config.inner_width(spec.width), spec.width * config.expansion
        stride1, stride2 = _split_stride(config, spec)
        self.bn1 = nn.BatchNorm2d(spec.in_channels)
        self.conv1 = conv1x1(spec.in_channels, inner, stride1)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv2 = conv3x3(inner, inner, stride2, config.groups)
        self.bn3 = nn.BatchNorm2d(inner)
        self.conv3 = conv1x1(inner, out_channels)
        self.downsample = make_shortcut(config, spec)
        self.drop_path = StochasticDepth(spec.drop_path)
        self.shortcut_after_activation = spec.first or _changes_shape(config, spec)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 4 width, H / stride, W / stride)."""
        activated = relu_(self.bn1(x))
        out: Tensor = self.conv1(activated)
        out = self.conv2(relu_(self.bn2(out)))
        out = self.conv3(relu_(self.bn3(out)))
        if self.downsample is not None:
            out = self.drop_path(out).add_(self.downsample(activated if self.shortcut_after_activation else x))
        return out

    def zero_init(self) -> None:
        """Set the last convolution to zero, so that the residual branch, which no batch norm ends, starts at zero."""
        nn.init.zeros_(self.conv3.weight)


class ZeroPadShortcut(nn.Module):
    """Shortcut A: skips pixels to change the size and adds zero channels to change the width; has no parameters.

    Source: He et al. 2015, section 3.3 (A). The paper does not say where the zeros go: most re-implementations put
    half of them on each side (pad "both"), fb.resnet.torch puts all of them at the "end".
    """

    def __init__(self, new_channels: int, stride: int, pad: str) -> None:
        super().__init__()
        self.stride = stride
        self.before = new_channels // 2 if pad == "both" else 0
        self.after = new_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + new_channels, H / stride, W / stride)."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        """Return what `print(net)` shows in parentheses."""
        return f"stride={self.stride}, zeros=({self.before}, {self.after})"


class StochasticDepth(nn.Module):
    """Drops the whole residual branch of some samples in training (Huang et al. 2016).

    The other samples are scaled by 1 / (1 - rate), so that nothing has to be scaled in eval mode. The random numbers come
    from torch's global generator of the input's device.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(keep)
        return x / keep * mask

    def extra_repr(self) -> str:
        """Return what `print(net)` shows in parentheses."""
        return f"rate={self.rate:.4g}"


def make_shortcut(config: ResNetConfig, spec: BlockSpec) -> nn.Module | None:
    """Build the shortcut of a block: identity, zero-padded identity (A), projection (B, C), or None in a plain network."""
    if config.shortcut == "none":
        return None
    if config.shortcut != "C" and not _changes_shape(config, spec):
        return nn.Identity()
    out_channels = spec.width * config.expansion
    if config.shortcut == "A":
        return ZeroPadShortcut(out_channels - spec.in_channels, spec.stride, config.pad)
    layers: list[nn.Module] = []
    stride = spec.stride
    if config.avg_down:
        # As in timm, Identity keeps the layers' numbers, and so the parameter names, the same in every stage.
        pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
        layers, stride = [nn.Identity() if stride == 1 else pool], 1
    layers.append(conv1x1(spec.in_channels, out_channels, stride))
    if not config.preact:  # the input of a pre-activation projection is normalized already
        layers.append(nn.BatchNorm2d(out_channels))
    return nn.Sequential(*layers)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Build a padded 3x3 convolution, without bias because batch norms add one."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Build a 1x1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


def _changes_shape(config: ResNetConfig, spec: BlockSpec) -> bool:
    return spec.stride != 1 or spec.in_channels != spec.width * config.expansion


def _split_stride(config: ResNetConfig, spec: BlockSpec) -> tuple[int, int]:
    """Return the strides of a bottleneck's first 1x1 and of its 3x3."""
    return (spec.stride, 1) if config.stride_on == "1x1" else (1, spec.stride)
