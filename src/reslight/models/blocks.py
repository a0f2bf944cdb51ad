"""The building blocks of residual networks: two blocks, their pre-activation versions, and what they share.

    basic           3x3 - 3x3                He et al. 2015, section 3.3 and figure 5, left
    bottleneck      1x1 - 3x3 - 1x1          He et al. 2015, section 4.1 and figure 5, right
    pre-activation  BN - ReLU before conv    He et al. 2016, figure 4(e)

A block of a plain net is the same block without the addition: its `downsample` is None.

`relu_` overwrites its input to save memory. Its input is always fresh: the output of a batch norm or of an addition.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn, relu_
from torch.nn import functional as F

from reslight.models.config import ResNetConfig


@dataclass(frozen=True)
class Place:
    """Where a block stands in its network."""

    in_channels: int
    """Channels that come in."""
    width: int
    """Width of the stage."""
    stride: int = 1
    """2 where the image is halved."""
    drop_path: float = 0.0
    """Rate at which stochastic depth drops the block."""
    first: bool = False
    """Whether it is the first block of the network."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, figure 2).

        x ─┬─ conv1 ─ bn1 ─ relu ─ conv2 ─ bn2 ─┬─ + ─ relu ─>
           └──────────── downsample ────────────┘

    `downsample` is torchvision's name of the shortcut, also where nothing is made smaller.
    """

    def __init__(self, config: ResNetConfig, place: Place) -> None:
        super().__init__()
        self.conv1 = conv3x3(place.in_channels, place.width, place.stride)
        self.bn1 = nn.BatchNorm2d(place.width)
        self.conv2 = conv3x3(place.width, place.width)
        self.bn2 = nn.BatchNorm2d(place.width)
        self.downsample = make_shortcut(config, place)
        self.drop_path = StochasticDepth(place.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, width, H / stride, W / stride)."""
        out = relu_(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            out = self.drop_path(out) + self.downsample(x)
        return relu_(out)

    def zero_init(self) -> None:
        """Makes the residual branch start at zero (Goyal et al. 2017, section 5.1)."""
        nn.init.zeros_(self.bn2.weight)


class Bottleneck(nn.Module):
    """A 1x1 convolution that narrows, a 3x3, and a 1x1 that widens (He et al. 2015, section 4.1).

        x ─┬─ conv1 ─ bn1 ─ relu ─ conv2 ─ bn2 ─ relu ─ conv3 ─ bn3 ─┬─ + ─ relu ─>
           └─────────────────────── downsample ──────────────────────┘

    With groups in the 3x3 it is ResNeXt's block (Xie et al. 2017, figure 3(c)).
    """

    def __init__(self, config: ResNetConfig, place: Place) -> None:
        super().__init__()
        inner, out_channels = config.inner_width(place.width), place.width * config.expansion
        stride1, stride2 = _split_stride(config, place)
        self.conv1 = conv1x1(place.in_channels, inner, stride1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv3x3(inner, inner, stride2, config.groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv1x1(inner, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = make_shortcut(config, place)
        self.drop_path = StochasticDepth(place.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 4 width, H / stride, W / stride)."""
        out = relu_(self.bn1(self.conv1(x)))
        out = relu_(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            out = self.drop_path(out) + self.downsample(x)
        return relu_(out)

    def zero_init(self) -> None:
        """Makes the residual branch start at zero (Goyal et al. 2017, section 5.1)."""
        nn.init.zeros_(self.bn3.weight)


class PreActBasicBlock(nn.Module):
    """The basic block with its activations before its convolutions (He et al. 2016, figure 4(e)).

        x ─┬─ bn1 ─ relu ─┬─ conv1 ─ bn2 ─ relu ─ conv2 ─┬─ + ─>
           └─── either ───┴───────── downsample ─────────┘

    The shortcut starts at x, so that the signal travels through the whole network untouched. Only where the shape
    changes, and in the first block of the network, it starts after the activation (the paper's appendix).
    """

    def __init__(self, config: ResNetConfig, place: Place) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(place.in_channels)
        self.conv1 = conv3x3(place.in_channels, place.width, place.stride)
        self.bn2 = nn.BatchNorm2d(place.width)
        self.conv2 = conv3x3(place.width, place.width)
        self.downsample = make_shortcut(config, place)
        self.drop_path = StochasticDepth(place.drop_path)
        self.split_after_activation = place.first or _changes_shape(config, place)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, width, H / stride, W / stride)."""
        activated = relu_(self.bn1(x))
        out: Tensor = self.conv1(activated)
        out = self.conv2(relu_(self.bn2(out)))
        if self.downsample is not None:
            out = self.drop_path(out) + self.downsample(activated if self.split_after_activation else x)
        return out

    def zero_init(self) -> None:
        """Makes the residual branch start at zero; no batch norm ends it, so its last convolution must."""
        nn.init.zeros_(self.conv2.weight)


class PreActBottleneck(nn.Module):
    """The bottleneck with its activations before its convolutions (He et al. 2016, figure 4(e)).

        x ─┬─ bn1 ─ relu ─┬─ conv1 ─ bn2 ─ relu ─ conv2 ─ bn3 ─ relu ─ conv3 ─┬─ + ─>
           └─── either ───┴──────────────────── downsample ───────────────────┘

    The shortcut starts where that of `PreActBasicBlock` does.
    """

    def __init__(self, config: ResNetConfig, place: Place) -> None:
        super().__init__()
        inner, out_channels = config.inner_width(place.width), place.width * config.expansion
        stride1, stride2 = _split_stride(config, place)
        self.bn1 = nn.BatchNorm2d(place.in_channels)
        self.conv1 = conv1x1(place.in_channels, inner, stride1)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv2 = conv3x3(inner, inner, stride2, config.groups)
        self.bn3 = nn.BatchNorm2d(inner)
        self.conv3 = conv1x1(inner, out_channels)
        self.downsample = make_shortcut(config, place)
        self.drop_path = StochasticDepth(place.drop_path)
        self.split_after_activation = place.first or _changes_shape(config, place)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 4 width, H / stride, W / stride)."""
        activated = relu_(self.bn1(x))
        out: Tensor = self.conv1(activated)
        out = self.conv2(relu_(self.bn2(out)))
        out = self.conv3(relu_(self.bn3(out)))
        if self.downsample is not None:
            out = self.drop_path(out) + self.downsample(activated if self.split_after_activation else x)
        return out

    def zero_init(self) -> None:
        """Makes the residual branch start at zero; no batch norm ends it, so its last convolution must."""
        nn.init.zeros_(self.conv3.weight)


class ZeroPadShortcut(nn.Module):
    """Option A: skip pixels to change the size, add zero channels to change the width; no parameters.

    Source: He et al. 2015, section 3.3 (A). The paper does not say where its zeros go: most re-implementations put
    half of them on either side (pad "both"), fb.resnet.torch puts all of them at the "end".
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
        """What `print(net)` shows of it."""
        return f"stride={self.stride}, zeros=({self.before}, {self.after})"


class StochasticDepth(nn.Module):
    """Drops the whole residual branch of some samples while training (Huang et al. 2016).

    What is kept is scaled by 1 / (1 - rate), so that nothing has to be scaled in eval mode. The draws come from
    torch's global generator of the input's device.
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
        """What `print(net)` shows of it."""
        return f"rate={self.rate:.4g}"


def make_shortcut(config: ResNetConfig, place: Place) -> nn.Module | None:
    """The shortcut of a block: identity, zero-padded identity (A), projection (B, C), or none in a plain net."""
    if config.shortcut == "none":
        return None
    if config.shortcut != "C" and not _changes_shape(config, place):
        return nn.Identity()
    out_channels = place.width * config.expansion
    if config.shortcut == "A":
        return ZeroPadShortcut(out_channels - place.in_channels, place.stride, config.pad)
    layers: list[nn.Module] = []
    stride = place.stride
    if config.avg_down:
        # Identity keeps the numbering of the layers, hence the parameter names, the same in every stage (as timm does).
        pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
        layers, stride = [nn.Identity() if stride == 1 else pool], 1
    layers.append(conv1x1(place.in_channels, out_channels, stride))
    if not config.preact:  # a pre-activated projection gets a normalised input, and must not be followed by a norm
        layers.append(nn.BatchNorm2d(out_channels))
    return nn.Sequential(*layers)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A padded 3x3 convolution; no bias, as a batch norm follows sooner or later."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 1x1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


def _changes_shape(config: ResNetConfig, place: Place) -> bool:
    return place.stride != 1 or place.in_channels != place.width * config.expansion


def _split_stride(config: ResNetConfig, place: Place) -> tuple[int, int]:
    """Strides of a bottleneck's first 1x1 and of its 3x3."""
    return (place.stride, 1) if config.stride_on == "1x1" else (1, place.stride)
