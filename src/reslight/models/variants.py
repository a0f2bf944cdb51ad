"""The table of architectures, and the ways from a name to a network."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from reslight.messages import UsageError, nearest
from reslight.models.config import Block, ResNetConfig, with_fields
from reslight.models.resnet import ResNet


def cifar_config(depth: int, block: Block = "basic", **fields: Any) -> ResNetConfig:
    """The paper's network of any legal depth for small images: three stages of width 16, 32 and 64.

    Args:
        depth: layers with weights: 6n + 2 of basic blocks, 9n + 2 of bottlenecks.
        block: "basic" with shortcut A (He et al. 2015), "bottleneck" with shortcut B (He et al. 2016).
        **fields: any other field of `ResNetConfig`, such as shortcut="none" for the plain net or preact=True.

    Raises:
        ValueError: no such network has this depth, or a field is unknown or has a value that is not allowed.
    """
    if block not in ("basic", "bottleneck"):
        raise UsageError(f"block={reprlib.repr(block)} is not allowed; choose one of basic, bottleneck")
    layers = 6 if block == "basic" else 9
    if type(depth) is not int or depth < layers + 2 or (depth - 2) % layers:
        raise UsageError(f"depth={reprlib.repr(depth)} is not {layers}n+2, as {block} blocks need; {_near(depth, layers)}")
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


def _near(depth: object, layers: int) -> str:
    """Which depths to take instead."""
    n = (depth - 2) // layers if type(depth) is int else 1
    return f"the nearest are {layers * max(n, 1) + 2} and {layers * (max(n, 1) + 1) + 2}"


def _imagenet(depths: tuple[int, ...], block: Block, **fields: Any) -> ResNetConfig:
    """A network of four stages; torchvision's choices unless a field says otherwise."""
    return ResNetConfig(depths=depths, widths=(64, 128, 256, 512), block=block, **fields)


def _small_images(depths: tuple[int, ...], block: Block, **fields: Any) -> ResNetConfig:
    """A network of four stages behind a 3x3 stem, for CIFAR."""
    return _imagenet(depths, block, stem="small", num_classes=10, **fields)


# Source -> name -> configuration. Parameter names and these rows are public API: add rows, never change one.
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
    # The paper's layers with the stride of a bottleneck on its 3x3 (stride_on="1x1" is the paper's), as torchvision.
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
    # Stride on the first 1x1 and projections, as the authors' code (KaimingHe/resnet-1k-layers) has them.
    "He et al. 2016, section 4": {
        "preact_resnet110": cifar_config(110, preact=True),
        "preact_resnet164": cifar_config(164, "bottleneck", preact=True, stride_on="1x1"),
        "preact_resnet1001": cifar_config(1001, "bottleneck", preact=True, stride_on="1x1"),
    },
    # Stride on the 3x3, as in fb.resnet.torch, with which the paper trained its ResNet-200.
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
"""Every named architecture."""

SOURCES: Mapping[str, str] = MappingProxyType({name: source for source, rows in _TABLE.items() for name in rows})
"""Where each named architecture comes from."""


def list_models(pattern: str = "*") -> list[str]:
    """Names of the architectures that match a shell-style pattern, in the table's order.

    >>> list_models("resnext*")
    ['resnext50_32x4d', 'resnext101_32x8d', 'resnext101_64x4d']
    """
    return [name for name in VARIANTS if fnmatchcase(name, pattern)]


def create_model(net: str | ResNetConfig | Mapping[str, Any], /, **fields: Any) -> ResNet:
    """A new network with random weights, in training mode.

    >>> create_model("resnet20", num_classes=100, shortcut="B").fc
    Linear(in_features=64, out_features=100, bias=True)

    Args:
        net: a name of `list_models()`, a configuration, or the mapping that `ResNetConfig.to_dict` gives.
        **fields: fields of `ResNetConfig` to change.

    Raises:
        ValueError: the name or a field is unknown (the nearest are offered), or a value is not allowed.
    """
    return ResNet(resolve_config(net, **fields))


def resolve_config(net: str | ResNetConfig | Mapping[str, Any], /, **fields: Any) -> ResNetConfig:
    """The configuration that a name, a configuration or a complete mapping stands for, with some fields changed.

    Raises:
        ValueError: the name or a field is unknown (the nearest are offered), or a value is not allowed.
    """
    if isinstance(net, str):
        if net not in VARIANTS:
            similar = nearest(net, VARIANTS)
            hint = f"did you mean {' or '.join(similar)}? " if similar else ""
            raise UsageError(f"there is no network {reprlib.repr(net)}; {hint}`reslight models` lists all")
        return with_fields(VARIANTS[net], fields)
    config = net if isinstance(net, ResNetConfig) else ResNetConfig.from_dict(net)
    return with_fields(config, fields)


def architecture_of(config: ResNetConfig) -> str | None:
    """The architecture's name, whatever its classes, channels and way of training; None for one without a name."""
    return next((name for name, known in VARIANTS.items() if without_training(known) == without_training(config)), None)


def without_training(config: ResNetConfig) -> ResNetConfig:
    """Return the configuration with those fields reset that change neither the architecture nor its logits in evaluation."""
    return replace(config, num_classes=1000, in_channels=3, drop_path=0.0, zero_init=False, checkpoint=False)
