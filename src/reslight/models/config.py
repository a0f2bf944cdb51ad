"""`ResNetConfig`: the complete description of a residual network, as one frozen, validated value."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

from reslight.messages import UsageError, check_keys
from reslight.plain import plain

Block = Literal["basic", "bottleneck"]
Shortcut = Literal["A", "B", "C", "none"]
Padding = Literal["both", "end"]
Stem = Literal["small", "imagenet", "deep"]
StrideOn = Literal["3x3", "1x1"]

# Configurations come from files that others wrote, so the size of the network is bounded before anything is allocated.
MAX_STAGES = 8
MAX_BLOCKS = 2_000
MAX_SIZE = 1_000_000
MAX_WEIGHTS = 1_000_000_000

_CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "block": get_args(Block),
        "shortcut": get_args(Shortcut),
        "pad": get_args(Padding),
        "stem": get_args(Stem),
        "stride_on": get_args(StrideOn),
    }
)
_FLAGS = ("preact", "avg_down", "zero_init", "checkpoint")
_SIZES = ("stem_width", "groups", "width_per_group", "in_channels", "num_classes")


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """The description of a residual (or plain) network, and the only argument of `ResNet`.

    The defaults are the choices of torchvision's ImageNet networks, so
    `ResNetConfig(depths=(2, 2, 2, 2), widths=(64, 128, 256, 512))` is torchvision's ResNet-18.

    Raises:
        UsageError: a field of the wrong type, out of bounds, or in contradiction with another field.
    """

    depths: tuple[int, ...]
    """Number of blocks of each stage."""
    widths: tuple[int, ...]
    """Width of each stage: the output channels of a basic block, a quarter of those of a bottleneck."""
    block: Block = "basic"
    """Two 3x3 convolutions ("basic"), or 1x1, 3x3, 1x1 with four times the channels at the end ("bottleneck")."""
    preact: bool = False
    """Batch norm and ReLU before each convolution (He et al. 2016) instead of after it (He et al. 2015)."""
    shortcut: Shortcut = "B"
    """Zero-padded identity ("A") or projection ("B") where the shape changes; projections everywhere ("C"); a plain
    network without shortcuts ("none")."""
    pad: Padding = "both"
    """Where shortcut A puts its zero channels: half on each side ("both"), or all after the others ("end")."""
    stem: Stem = "imagenet"
    """3x3 ("small"), 7x7 of stride 2 and max-pool ("imagenet"), or three 3x3 and max-pool ("deep")."""
    stem_width: int = 64
    """Output channels of the stem; the first two convolutions of a deep stem have half as many."""
    stride_on: StrideOn = "3x3"
    """Which convolution of a bottleneck has the stride: the "3x3", or the first "1x1" as in the 2015 paper."""
    groups: int = 1
    """Groups of a bottleneck's 3x3 convolution (ResNeXt's cardinality)."""
    width_per_group: int = 64
    """Channels per group of a bottleneck's 3x3 convolution in a stage of width 64; proportional to the stage's width."""
    avg_down: bool = False
    """2x2 average pooling before a projection's 1x1 convolution, which then has stride 1 (ResNet-D)."""
    drop_path: float = 0.0
    """Stochastic depth: probability that the last block is dropped; it grows linearly from the first block."""
    zero_init: bool = False
    """Start every residual branch at zero: the last batch norm's gamma, or the last convolution of a pre-activation."""
    in_channels: int = 3
    """Channels of the input images."""
    num_classes: int = 1000
    """Number of logits."""
    checkpoint: bool = False
    """Activation checkpointing: recompute each block in the backward pass, which saves memory and takes a third more time."""

    def __post_init__(self) -> None:
        """Convert lists to tuples and a drop_path of 0 to a float, then check the fields and their combinations."""
        for name in ("depths", "widths"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)
        if type(self.drop_path) is int and self.drop_path == 0:
            object.__setattr__(self, "drop_path", 0.0)
        _check_fields(self)
        _check_combinations(self)
        _check_option_a(self)
        if _bound_weights(self) > MAX_WEIGHTS:
            raise UsageError(
                f"depths={self.depths}, widths={self.widths}, groups={self.groups}, num_classes={self.num_classes} "
                f"have more than {MAX_WEIGHTS:,} weights, the most that reslight builds. Choose a smaller network."
            )

    @property
    def expansion(self) -> int:
        """Output channels of a block, divided by its stage's width."""
        return 4 if self.block == "bottleneck" else 1

    @property
    def input_size(self) -> int:
        """Usual height and width of the images, in pixels: 32 for the small stem, otherwise 224."""
        return 32 if self.stem == "small" else 224

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages: layer1, layer2, and so on."""
        return tuple(f"layer{number}" for number in range(1, len(self.depths) + 1))

    def inner_width(self, width: int) -> int:
        """Return the channels of a block's 3x3 convolutions in a stage of this width."""
        return width * self.width_per_group // 64 * self.groups if self.block == "bottleneck" else width

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain data for JSON or YAML; `from_dict` is the inverse."""
        values: dict[str, Any] = plain(self)
        return values

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ResNetConfig:
        """Return the configuration from the complete mapping that `to_dict` gives.

        Raises:
            UsageError: an unknown or missing key, or a value that is not allowed.
        """
        if not isinstance(data, Mapping):
            raise UsageError(f"the network is {reprlib.repr(data)}: it must be a name or a mapping of ResNetConfig's fields.")
        names = [field.name for field in fields(cls)]
        check_keys(data, names, names, "ResNetConfig")
        return cls(**data)


def check_field_names(names: Iterable[object]) -> None:
    """Check that all names are fields of `ResNetConfig`.

    Raises:
        UsageError: an unknown field; the nearest are suggested.
    """
    check_keys(names, [field.name for field in fields(ResNetConfig)], (), "ResNetConfig")


def with_fields(config: ResNetConfig, changes: Mapping[str, Any]) -> ResNetConfig:
    """Return the configuration with some fields changed.

    Raises:
        UsageError: an unknown field, or a value that is not allowed.
    """
    check_field_names(changes)
    return replace(config, **changes)


def _check_fields(config: ResNetConfig) -> None:
    """Check the type and the bounds of each field."""
    for name, choices in _CHOICES.items():
        value = getattr(config, name)
        if not isinstance(value, str) or value not in choices:
            raise UsageError(f"{name} is {reprlib.repr(value)}: it must be one of {', '.join(choices)}.")
    for name in _FLAGS:
        if type(getattr(config, name)) is not bool:  # 0 and 1 would pass an "in (True, False)"
            raise UsageError(f"{name} is {reprlib.repr(getattr(config, name))}: it must be true or false.")
    for name in _SIZES:
        _check_size(name, getattr(config, name))
    for name in ("depths", "widths"):
        _check_sizes(name, getattr(config, name))
    # The condition names what is allowed, so that NaN is refused.
    if not (isinstance(config.drop_path, float) and 0.0 <= config.drop_path < 1.0):
        raise UsageError(f"drop_path is {reprlib.repr(config.drop_path)}: it must be a number from 0 to below 1. Use 0 to turn it off.")


def _check_size(name: str, value: object) -> None:
    if type(value) is not int or not 1 <= value <= MAX_SIZE:  # bool is an int to isinstance
        raise UsageError(f"{name} is {reprlib.repr(value)}: it must be a whole number from 1 to {MAX_SIZE:,}.")


def _check_sizes(name: str, values: object) -> None:
    if not isinstance(values, tuple) or not 1 <= len(values) <= MAX_STAGES:
        raise UsageError(f"{name} is {reprlib.repr(values)}: it must be a list of 1 to {MAX_STAGES} numbers, one per stage.")
    for number, value in enumerate(values):
        _check_size(f"{name}[{number}]", value)


def _check_combinations(config: ResNetConfig) -> None:
    """Check that the fields agree, and that none asks for something that this network does not have."""
    c = config
    if len(c.depths) != len(c.widths):
        raise UsageError(f"depths is {c.depths} and widths is {c.widths}: their lengths differ. Give one of each per stage.")
    if sum(c.depths) > MAX_BLOCKS:
        raise UsageError(f"depths is {c.depths}: {sum(c.depths):,} blocks are more than {MAX_BLOCKS:,}. Use fewer.")
    if c.block == "basic" and (c.groups, c.width_per_group, c.stride_on) != (1, 64, "3x3"):
        raise UsageError(
            f"block is basic: groups={c.groups}, width_per_group={c.width_per_group}, stride_on={c.stride_on} need block bottleneck. "
            "Use that, or groups 1, width_per_group 64, stride_on 3x3."
        )
    if min(map(c.inner_width, c.widths)) < 1:
        raise UsageError(f"width_per_group is {c.width_per_group}: with widths {c.widths} a block has no channels. Use a larger one.")
    if c.stem == "deep" and c.stem_width % 2:
        raise UsageError(
            f"stem_width is {c.stem_width}: it must be even with stem deep, whose first convolution has half as many channels."
        )
    if c.avg_down and c.shortcut not in ("B", "C"):
        raise UsageError(f"avg_down is true: shortcut {c.shortcut} has no projections. Set shortcut to B or C, or avg_down to false.")
    if c.shortcut == "none" and (c.drop_path or c.zero_init):
        raise UsageError(
            f"drop_path is {c.drop_path}, zero_init is {c.zero_init}: a plain network (shortcut none) would lose its only path. "
            "Set drop_path to 0 and zero_init to false, or choose shortcut A, B or C."
        )


def _check_option_a(config: ResNetConfig) -> None:
    """Check that zero padding adds channels and never has to remove any."""
    c = config
    if c.shortcut != "A":
        if c.pad != "both":
            raise UsageError(f"pad is {c.pad}: it matters for shortcut A only, and shortcut is {c.shortcut}. Leave pad at 'both'.")
        return
    channels = [c.stem_width, *(width * c.expansion for width in c.widths)]
    if channels != sorted(channels):
        raise UsageError(f"shortcut is A: it cannot reduce channels, and they are {channels}. Use non-decreasing widths, or shortcut B.")


def _bound_weights(config: ResNetConfig) -> int:
    """Return the number of weights if every block had a projection: a cheap upper bound, close to the true number."""
    channels = config.stem_width
    total = 49 * config.in_channels * channels + (9 * channels * channels if config.stem == "deep" else 0)
    for depth, width in zip(config.depths, config.widths, strict=True):
        out, inner = width * config.expansion, config.inner_width(width)
        for blocks, before in ((1, channels), (depth - 1, out)):
            if config.block == "bottleneck":
                convs = before * inner + 9 * inner * inner // config.groups + inner * out
            else:
                convs = 9 * before * out + 9 * out * out
            total += blocks * (convs + before * out)
        channels = out
    return total + channels * config.num_classes
