"""The table of architectures, and the functions that turn a name into a network and a network into a name."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from reslight.messages import UsageError, did_you_mean
from reslight.models.config import Block, ResNetConfig, with_fields
from reslight.models.resnet import ResNet


def cifar_config(depth: int, block: Block = "basic", **fields: Any) -> ResNetConfig:
    """Return the paper's network for small images, of any possible depth: three stages of width 16, 32 and 64.

    Args:
        depth: Number of layers with weights: 6n + 2 with basic blocks, 9n + 2 with bottlenecks.
        block: "basic" with shortcut A (He et al. 2015), "bottleneck" with shortcut B (He et al. 2016).
        **fields: Any other field of `ResNetConfig`, such as shortcut="none" for the plain network or preact=True.

    Raises:
        UsageError: an impossible depth, an unknown field, or a value that is not allowed.
    """
    if block not in ("basic", "bottleneck"):
        raise UsageError(f"block is {reprlib.repr(block)}: it must be one of basic, bottleneck.")
    layers = 6 if block == "basic" else 9
    if type(depth) is not int or depth < layers + 2 or (depth - 2) % layers:
        raise UsageError(f"depth is {reprlib.repr(depth)}: with {block} blocks it must be {layers}n+2. {_nearest_depths(depth, layers)}")
    config = ResNetConfig(
        depths=((depth - 2) // layers,) * 3,
        widths=(16, 32, 64),
        block=block,
        shortcut="A" if block == "basic" else "B",
        stem="small",
        stem_width=16,
        num_classes=10,
    )
    return with_fields(config, fields)


def _nearest_depths(depth: object, layers: int) -> str:
    """Return which depths to use instead, as messages say it."""
    n = (depth - 2) // layers if type(depth) is int else 1
    return f"Use {layers * max(n, 1) + 2} or {layers * (max(n, 1) + 1) + 2}."


def _imagenet(depths: tuple[int, ...], block: Block, **fields: Any) -> ResNetConfig:
    """Return a network of four stages, with torchvision's choices for the fields that are not given."""
    return ResNetConfig(depths=depths, widths=(64, 128, 256, 512), block=block, **fields)


def _small_images(depths: tuple[int, ...], block: Block, **fields: Any) -> ResNetConfig:
    """Return a network of four stages after a 3x3 stem, for CIFAR."""
    return _imagenet(depths, block, stem="small", num_classes=10, **fields)


# Source -> name -> configuration. These rows and the parameter names are public API: rows are added, never changed.
_TABLE: Mapping[str, Mapping[str, ResNetConfig]] = {
    "He et al. 2015, section 4.2": {
        "resnet8": cifar_config(8),
        "resnet20": cifar_config(20),
        "resnet32": cifar_config(32),
        "resnet44": cifar_config(44),
        "resnet56": cifar_config(56),
        "resnet110": cifar_config(110),
        "resnet1202": cifar_config(1202),
        "plain20": cifar_config(20, shortcut="none"),
        "plain32": cifar_config(32, shortcut="none"),
        "plain44": cifar_config(44, shortcut="none"),
        "plain56": cifar_config(56, shortcut="none"),
        "plain110": cifar_config(110, shortcut="none"),
    },
    # A bottleneck's stride is on its 3x3, as in torchvision; in the paper it is on the first 1x1 (stride_on="1x1").
    "He et al. 2015, section 4.1": {
        "resnet18": _imagenet((2, 2, 2, 2), "basic"),
        "resnet34": _imagenet((3, 4, 6, 3), "basic"),
        "resnet50": _imagenet((3, 4, 6, 3), "bottleneck"),
        "resnet101": _imagenet((3, 4, 23, 3), "bottleneck"),
        "resnet152": _imagenet((3, 8, 36, 3), "bottleneck"),
        "plain18": _imagenet((2, 2, 2, 2), "basic", shortcut="none"),
        "plain34": _imagenet((3, 4, 6, 3), "basic", shortcut="none"),
    },
    "after He et al. 2015, for CIFAR": {
        "resnet18_cifar": _small_images((2, 2, 2, 2), "basic"),
        "resnet34_cifar": _small_images((3, 4, 6, 3), "basic"),
        "resnet50_cifar": _small_images((3, 4, 6, 3), "bottleneck"),
        "resnet101_cifar": _small_images((3, 4, 23, 3), "bottleneck"),
        "resnet152_cifar": _small_images((3, 8, 36, 3), "bottleneck"),
    },
    "after He et al. 2016, for CIFAR": {
        "preact_resnet18_cifar": _small_images((2, 2, 2, 2), "basic", preact=True),
    },
    # Stride on the first 1x1, and projections, as in the authors' code (KaimingHe/resnet-1k-layers).
    "He et al. 2016, section 4": {
        "preact_resnet110": cifar_config(110, preact=True),
        "preact_resnet164": cifar_config(164, "bottleneck", preact=True, stride_on="1x1"),
        "preact_resnet1001": cifar_config(1001, "bottleneck", preact=True, stride_on="1x1"),
    },
    # Stride on the 3x3, as in fb.resnet.torch, which trained the paper's ResNet-200.
    "He et al. 2016, section 5": {
        "preact_resnet50": _imagenet((3, 4, 6, 3), "bottleneck", preact=True),
        "preact_resnet101": _imagenet((3, 4, 23, 3), "bottleneck", preact=True),
        "preact_resnet152": _imagenet((3, 8, 36, 3), "bottleneck", preact=True),
        "preact_resnet200": _imagenet((3, 24, 36, 3), "bottleneck", preact=True),
    },
    "Zagoruyko and Komodakis 2016, section 2": {
        "wrn28_10": ResNetConfig(depths=(4, 4, 4), widths=(160, 320, 640), preact=True, stem="small", stem_width=16, num_classes=10),
        "wide_resnet50_2": _imagenet((3, 4, 6, 3), "bottleneck", width_per_group=128),
        "wide_resnet101_2": _imagenet((3, 4, 23, 3), "bottleneck", width_per_group=128),
    },
    "Xie et al. 2017, section 3": {
        "resnext50_32x4d": _imagenet((3, 4, 6, 3), "bottleneck", groups=32, width_per_group=4),
        "resnext101_32x8d": _imagenet((3, 4, 23, 3), "bottleneck", groups=32, width_per_group=8),
        "resnext101_64x4d": _imagenet((3, 4, 23, 3), "bottleneck", groups=64, width_per_group=4),
    },
    "T. He et al. 2019, section 4.2": {
        "resnet50d": _imagenet((3, 4, 6, 3), "bottleneck", stem="deep", avg_down=True),
    },
}

VARIANTS: Mapping[str, ResNetConfig] = MappingProxyType({name: config for rows in _TABLE.values() for name, config in rows.items()})
"""Configuration of every named architecture, by name."""

SOURCES: Mapping[str, str] = MappingProxyType({name: source for source, rows in _TABLE.items() for name in rows})
"""Source of every named architecture, by name."""


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the architectures that match a shell-style pattern, in the table's order.

    Examples:
        >>> list_models("resnext*")
        ['resnext50_32x4d', 'resnext101_32x8d', 'resnext101_64x4d']
    """
    return [name for name in VARIANTS if fnmatchcase(name, pattern)]


def create_model(net: str | ResNetConfig | Mapping[str, Any], /, **fields: Any) -> ResNet:
    """Build a network with random weights, in training mode.

    Examples:
        >>> create_model("resnet20", num_classes=100, shortcut="B").fc
        Linear(in_features=64, out_features=100, bias=True)

    Args:
        net: A name of `list_models()`, a configuration, or the mapping that `ResNetConfig.to_dict` gives.
        **fields: Fields of `ResNetConfig` to change.

    Raises:
        UsageError: an unknown name or field (the nearest are suggested), or a value that is not allowed.
    """
    return ResNet(resolve_config(net, **fields))


def resolve_config(net: str | ResNetConfig | Mapping[str, Any], /, **fields: Any) -> ResNetConfig:
    """Return the configuration of a name, a configuration or a complete mapping, with some fields changed.

    Raises:
        UsageError: an unknown name or field (the nearest are suggested), or a value that is not allowed.
    """
    if isinstance(net, str):
        if net not in VARIANTS:
            hint = did_you_mean(net, VARIANTS)
            raise UsageError(f"there is no network {reprlib.repr(net)}: {f'{hint} ' if hint else ''}`reslight models` lists all.")
        return with_fields(VARIANTS[net], fields)
    config = net if isinstance(net, ResNetConfig) else ResNetConfig.from_dict(net)
    return with_fields(config, fields)


def architecture_of(config: ResNetConfig) -> str | None:
    """Return the name of a network's architecture, whatever its classes, channels and training options; None if it has no name."""
    return next((name for name, known in VARIANTS.items() if without_training(known) == without_training(config)), None)


def net_setting(config: ResNetConfig) -> str | dict[str, Any]:
    """Return the value of the setting `model.net` for a network: its name if the name says all, otherwise its fields.

    The number of classes and of channels are left out, because a run takes them from its data.
    """
    name = architecture_of(config)
    if name and replace(VARIANTS[name], num_classes=config.num_classes, in_channels=config.in_channels) == config:
        return name
    return {key: value for key, value in config.to_dict().items() if key not in ("num_classes", "in_channels")}


def without_training(config: ResNetConfig) -> ResNetConfig:
    """Return the configuration with those fields reset that change neither the architecture nor its logits in evaluation."""
    return replace(config, num_classes=1000, in_channels=3, drop_path=0.0, zero_init=False, checkpoint=False)
