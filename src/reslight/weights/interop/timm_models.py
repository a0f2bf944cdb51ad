"""The ResNets of timm and torchvision that ResNetConfig can express, by timm's names."""

import reprlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from reslight.messages import UsageError, nearest
from reslight.models import ResNetConfig
from reslight.models.config import with_fields
from reslight.models.variants import without_training
from reslight.weights.interop.names import family_of

_DEPTHS = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}


_DEEP = {"stem": "deep", "avg_down": True}


def _basic(depth: int, **fields: Any) -> ResNetConfig:
    return ResNetConfig(depths={18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}[depth], widths=(64, 128, 256, 512), **fields)


def _bottleneck(depth: int, **fields: Any) -> ResNetConfig:
    return ResNetConfig(depths=_DEPTHS[depth], widths=(64, 128, 256, 512), block="bottleneck", **fields)


TIMM: Mapping[str, ResNetConfig] = MappingProxyType(
    {
        **{f"resnet{depth}": _basic(depth) for depth in (18, 34)},
        **{f"resnet{depth}": _bottleneck(depth) for depth in (26, 50, 101, 152, 200)},
        **{f"resnet{depth}c": _bottleneck(depth, stem="deep") for depth in (50, 101, 152)},
        **{f"resnet{depth}s": _bottleneck(depth, stem="deep", stem_width=128) for depth in (50, 101, 152)},
        **{f"resnet{depth}d": _basic(depth, **_DEEP) for depth in (18, 34)},
        **{f"resnet{depth}d": _bottleneck(depth, **_DEEP) for depth in (26, 50, 101, 152, 200)},
        **{f"wide_resnet{depth}_2": _bottleneck(depth, width_per_group=128) for depth in (50, 101)},
        **{f"resnext{depth}_32x4d": _bottleneck(depth, groups=32, width_per_group=4) for depth in (50, 101)},
        "resnext50d_32x4d": _bottleneck(50, groups=32, width_per_group=4, **_DEEP),
        **{f"resnext101_32x{width}d": _bottleneck(101, groups=32, width_per_group=width) for width in (8, 16, 32)},
        "resnext101_64x4d": _bottleneck(101, groups=64, width_per_group=4),
        **{f"resnetv2_{depth}": _bottleneck(depth, preact=True) for depth in (50, 101, 152)},
        **{f"resnetv2_{depth}d": _bottleneck(depth, preact=True, **_DEEP) for depth in (50, 101, 152)},
    }
)
"""Every architecture of timm that `ResNetConfig` can express, by timm's name.

Its other ResNets have squeeze-and-excitation, anti-aliasing, tiered stems, other norms or other activations, or begin with
a pre-activated basic block (resnetv2_18), whose identity starts before the activation there.
"""


# timm's arguments that mean a field of ours, and those that change nothing in evaluation.
_ARGUMENTS = {
    "num_classes": "num_classes",
    "in_chans": "in_channels",
    "layers": "depths",
    "cardinality": "groups",
    "base_width": "width_per_group",
}


_IN_TRAINING = {"drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last"}


_ALWAYS = {"global_pool": "avg"}  # which our networks have, and timm writes out


def timm_architecture(config: ResNetConfig) -> str | None:
    """Timm's name of a network, whatever its classes, image channels and way of training; None where it has none."""
    wanted = without_training(config)
    return next((name for name, known in TIMM.items() if without_training(known) == wanted), None)


def timm_config(architecture: str, model_args: Mapping[str, Any] | None = None) -> ResNetConfig:
    """The network that timm builds.

    Args:
        architecture: timm's name, with or without the tag of weights: resnet50, resnet50.a1_in1k.
        model_args: what timm's `create_model` gets besides, as in a config.json.

    Raises:
        ValueError: reslight cannot build this network, or an argument is not known to leave it one that it can.
    """
    name = architecture.partition(".")[0] if isinstance(architecture, str) else None
    if name not in TIMM:
        similar = nearest(str(architecture), TIMM)
        hint = f"similar ones that it has: {', '.join(similar)}" if similar else "only plain ResNets, ResNeXts and pre-activation ResNets"
        raise UsageError(f"reslight cannot build timm's {reprlib.repr(architecture)}; {hint}")
    given = (model_args or {}).items()
    arguments = {key: value for key, value in given if key not in _IN_TRAINING and (key not in _ALWAYS or value != _ALWAYS[key])}
    if unknown := [key for key in arguments if key not in _ARGUMENTS]:
        raise UsageError(f"timm's argument {reprlib.repr(unknown[0])} is not understood; those that are: {', '.join(_ARGUMENTS)}")
    config = with_fields(TIMM[name], {_ARGUMENTS[key]: value for key, value in arguments.items()})
    family_of(config, "timm")  # complains of what timm's network could not take either
    return config
