"""The ResNets of timm that `ResNetConfig` can express, by timm's names (torchvision's are among them)."""

import reprlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from reslight.messages import UsageError, check_keys, did_you_mean
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

timm's other ResNets have squeeze-and-excitation, anti-aliasing, tiered stems, other norms or other activations, or begin
with a pre-activation basic block (resnetv2_18), whose shortcut starts before the activation in timm.
"""

_ARGUMENTS = {
    "num_classes": "num_classes",
    "in_chans": "in_channels",
    "layers": "depths",
    "cardinality": "groups",
    "base_width": "width_per_group",
}
"""timm's arguments, and the fields of `ResNetConfig` that they set."""
_TRAINING_ARGUMENTS = {"drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last"}
"""timm's arguments that do not change the logits in eval mode."""
_DEFAULTS = {"global_pool": "avg"}
"""Arguments that timm writes although reslight's networks have only this value."""


def timm_architecture(config: ResNetConfig) -> str | None:
    """Return timm's name of a network, whatever its classes, input channels and training settings; None if timm has none."""
    wanted = without_training(config)
    return next((name for name, known in TIMM.items() if without_training(known) == wanted), None)


def timm_config(architecture: str, model_args: Mapping[str, Any] | None = None) -> ResNetConfig:
    """Return the network that timm builds.

    Args:
        architecture: timm's name, with or without the tag of the weights: resnet50, resnet50.a1_in1k.
        model_args: The other arguments of timm's `create_model`, as in a config.json.

    Raises:
        UsageError: a network that reslight cannot build, or an argument that reslight does not know.
    """
    name = architecture.partition(".")[0] if isinstance(architecture, str) else None
    if name not in TIMM:
        hint = did_you_mean(str(architecture), TIMM, otherwise="use a plain ResNet, a ResNeXt or a pre-activation ResNet.")
        raise UsageError(f"architecture is {reprlib.repr(architecture)}: reslight does not have this network of timm; {hint}")
    given = (model_args or {}).items()
    arguments = {key: value for key, value in given if key not in _TRAINING_ARGUMENTS and (key not in _DEFAULTS or value != _DEFAULTS[key])}
    check_keys(arguments, _ARGUMENTS, (), "timm's model_args")
    config = with_fields(TIMM[name], {_ARGUMENTS[key]: value for key, value in arguments.items()})
    family_of(config, "timm")  # raises for fields that timm's network cannot have either
    return config
